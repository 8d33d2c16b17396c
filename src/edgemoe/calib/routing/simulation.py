"""Replaying a trace without a model: what policies and predictors would do, and the best that could be done.

The residency, the policies, the predictors and the rule of what to read ahead are those of the engine;
only storage (storage_model.py) and computing are models: the same time for every layer, half of it for its
experts. Letters: T tokens, S layers with experts.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.calib.routing.storage_model import StorageLine
from edgemoe.calib.trace import Trace
from edgemoe.experts import (
    HALF_LIFE_TOKENS,
    NextUse,
    NoPredictor,
    Predictor,
    Residency,
    UseStatistics,
    make_policy,
    speculate,
)
from edgemoe.native import EvictionPolicy, FloatArray, IntArray, LayerPace
from edgemoe.store import Device

BELADY = "belady"
# Part of a layer's time that its experts take; the rest, attention above all, comes before its router.
EXPERT_SHARE = 0.5


@dataclass(frozen=True)
class SimulatedRun:
    """What one way of caching costs, per token where a time or bytes."""

    policy: str
    predictor: str
    capacity_share: float
    hit_share: float
    share_of_belady: float
    bytes_read: float
    wasted_bytes: float
    stall_s: float
    speed_share: float  # of what it would be with every expert resident
    bound_ratio: float  # time over max(compute, Belady's bytes / bandwidth)
    hits_by_token: tuple[int, ...] = field(default=(), repr=False)  # how it goes on; not part of the summary

    def to_json(self) -> dict[str, Any]:
        """Plain values of the whole."""
        return {name: value for name, value in asdict(self).items() if name != "hits_by_token"}


@dataclass(frozen=True)
class Setting:
    """What is simulated: tokens 0 to ``num_tokens`` of a trace on a device.

    ``next_use`` is what the policy "forecast" asks; without it that is "edgemoe". Uses count half after
    ``half_life_tokens``.
    """

    trace: Trace
    num_tokens: int
    device: Device
    layer_s: float  # computing of one layer for one token
    next_use: NextUse | None = None
    half_life_tokens: float = HALF_LIFE_TOKENS


def simulate(
    setting: Setting, capacity_share: float, policy: str, predictor: Predictor, predictor_name: str
) -> SimulatedRun:
    """Replay with a policy, or with "belady", which knows the future and reads nothing ahead."""
    capacity_bytes = _capacity_bytes(setting.trace, capacity_share)
    best = _Replay(setting, capacity_bytes, _Belady(setting), NoPredictor(), floor_share=0.0).run()
    replay = best
    if policy != BELADY:
        replay = _Replay(setting, capacity_bytes, make_policy(policy), predictor).run()
    tokens, uses = setting.num_tokens, replay.num_hits + replay.num_misses
    compute_s = setting.layer_s * setting.trace.catalog.num_layers
    stall_s = replay.reads.waited_s / tokens
    bound_s = max(compute_s, best.reads.bytes_read / tokens / setting.device.bytes_per_s)
    return SimulatedRun(
        policy=policy,
        predictor=predictor_name,
        capacity_share=capacity_share,
        hit_share=replay.num_hits / uses,
        share_of_belady=replay.num_hits / best.num_hits if best.num_hits else 1.0,
        bytes_read=replay.reads.bytes_read / tokens,
        wasted_bytes=replay.wasted_bytes / tokens,
        stall_s=stall_s,
        speed_share=compute_s / (compute_s + stall_s),
        bound_ratio=(compute_s + stall_s) / bound_s,
        hits_by_token=tuple(replay.hits_by_token),
    )


def _capacity_bytes(trace: Trace, share: float) -> int:
    """That share of all experts, at least what one layer needs at once."""
    sizes = trace.catalog.num_bytes
    return max(int(share * sizes.sum()), trace.top_k * int(sizes.max()))


class _Belady(EvictionPolicy):
    """The expert that is needed again last leaves first (Belady 1966); needs the future."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(depends_on_layer=True)
        catalog = setting.trace.catalog
        self._uses: list[list[int]] = [[] for _ in range(len(catalog))]
        for clock, (position, experts) in enumerate(_events(setting), 1):
            first = catalog.span(position).start
            for expert in experts.tolist():
                self._uses[first + expert].append(clock)

    def worth(self, statistics: native.UseStatistics, candidates: Sequence[int]) -> list[float]:
        """See EvictionPolicy."""
        return [-self._next_use(expert, statistics.clock) for expert in candidates]

    def _next_use(self, expert: int, clock: int) -> float:
        uses = self._uses[expert]
        index = bisect.bisect_right(uses, clock)
        return uses[index] if index < len(uses) else float("inf")


def _events(setting: Setting) -> Sequence[tuple[int, NDArray[np.int16]]]:
    """(position, chosen experts) of every layer of every token, in order."""
    experts = setting.trace.experts[: setting.num_tokens]
    return [(position, row) for token in experts for position, row in enumerate(token)]


class _Replay:
    """One pass over a trace."""

    def __init__(
        self,
        setting: Setting,
        capacity_bytes: int,
        policy: EvictionPolicy,
        predictor: Predictor,
        **residency_options: float,
    ) -> None:
        self._setting = setting
        self.catalog = setting.trace.catalog
        self._statistics = UseStatistics(self.catalog, setting.half_life_tokens)
        self.residency = Residency(self._statistics, policy, capacity_bytes, **residency_options)
        device = setting.device
        self.reads = reads = StorageLine(self.catalog, self.residency, device)
        # Without self: compiled code that held it could never be freed.
        pace = LayerPace(device.bytes_per_s, device.latency_s, 0.0, lambda: reads.now_s)
        top_k = setting.trace.top_k
        self._speculation = speculate(self.catalog, self.residency, reads, predictor, top_k, pace)
        self.num_hits = self.num_misses = 0
        self.hits_by_token: list[int] = []

    @property
    def wasted_bytes(self) -> int:
        """Read ahead for layers that chose otherwise."""
        return 0 if self._speculation is None else self._speculation.wasted_bytes

    def run(self) -> _Replay:
        """Replay all tokens."""
        trace = self._setting.trace
        for token in range(self._setting.num_tokens):
            states = trace.states[token].astype(np.float32) if token < len(trace.states) else None
            before = self.num_hits
            for position in range(self.catalog.num_layers):
                self._layer(token, position, None if states is None else states[position])
            self.hits_by_token.append(self.num_hits - before)
        return self

    def _layer(self, token: int, position: int, state: FloatArray | None) -> None:
        trace, reads = self._setting.trace, self.reads
        reads.advance(reads.now_s)
        chosen = self._statistics.observe(position, trace.experts[token, position].astype(np.int32)[None])
        seen = None if state is None else self._seen(token, position, state)
        if seen is not None and self._setting.next_use is not None:
            self._setting.next_use.tell(self._statistics, position, *seen)
        if self._speculation is not None:
            self._speculation.settle(position, 1, chosen)
        missing = self.residency.missing(chosen)
        self.num_misses += len(missing)
        self.num_hits += len(chosen) - len(missing)
        self.residency.pin(chosen)
        for expert in missing:
            if expert in reads:
                reads.demand(expert)
            elif not reads.start(expert, 0):
                # All room is taken by reads that are under way.
                reads.advance(reads.now_s + 1.0)
                reads.start(expert, 0)
        if self._speculation is not None and seen is not None:
            self._speculation.start(position, *seen)
        self._compute(chosen, missing)
        self.residency.unpin(chosen)

    def _seen(self, token: int, position: int, state: FloatArray) -> tuple[FloatArray, IntArray, FloatArray]:
        """What the layer's router saw and chose, as predictors take it."""
        ids = self._setting.trace.experts[token, position].astype(np.int32)[None]
        weights = self._setting.trace.weights[token, position].astype(np.float32)[None]
        return state[None], ids, weights

    def _compute(self, chosen: list[int], missing: list[int]) -> None:
        """Resident experts, then missing ones as they arrive, then the next layer's attention."""
        reads, layer_s = self.reads, self._setting.layer_s
        expert_s = EXPERT_SHARE * layer_s / len(chosen)
        began_s = reads.now_s
        reads.advance(began_s + expert_s * (len(chosen) - len(missing)))
        for _ in missing:
            reads.wait_any([expert for expert in missing if not self.residency.is_resident[expert]])
            reads.advance(reads.now_s + expert_s)
        reads.waited_s += reads.now_s - began_s - expert_s * len(chosen)
        reads.advance(reads.now_s + (1 - EXPERT_SHARE) * layer_s)
