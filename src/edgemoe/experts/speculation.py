"""Reading ahead: which forecast experts are worth starting to read now.

A read on speculation pays when the time it hides, weighed by its probability, is more than the time it
costs when it was wrong. On storage so slow that a read takes many times the time until the router
speaks, almost nothing pays; and where almost everything is resident, forecasting itself costs more than
it saves. The governor notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgemoe import native
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.governor import Governor
from edgemoe.experts.predictors import NoPredictor, Predictor
from edgemoe.experts.residency import Residency
from edgemoe.native import FloatArray, IntArray

# Weight of the newest observation in running means.
NEWEST = 0.05
# Before anything was observed: how often an expert ranked among the first K, or the next K, is chosen.
FIRST_CONFIDENCE, NEXT_CONFIDENCE = 0.8, 0.15
# A wrong read also pushes something out; the share of a read that this costs on average.
EVICTION_COST = 0.1
# What is believed of storage and of the time between two layers before they are measured.
UNKNOWN_BANDWIDTH = 500e6
UNKNOWN_INTERVAL_S = 1e-3
# Part of a layer's time that is left when its last expert has arrived: that expert and the next attention.
TAIL_SHARE = 0.5
# One layer ahead is early enough when its time is this many reads', and how far to look otherwise.
AMPLE = 0.7
MAX_LOOKAHEAD = 2


Clock = Callable[[], float]


class Residents(Protocol):
    """What speculation asks of the expert cache."""

    @property
    def catalog(self) -> Catalog:
        """All experts."""
        ...

    @property
    def residency(self) -> Residency:
        """Who may be evicted."""
        ...

    @property
    def is_complete(self) -> bool:
        """True when every expert is resident."""
        ...

    def __contains__(self, expert: int) -> bool: ...


class Reads(Protocol):
    """What speculation asks of the reads under way."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of reads under way."""
        ...

    @property
    def demanded_bytes(self) -> int:
        """Of these, what is needed now."""
        ...

    def __contains__(self, expert: int) -> bool: ...

    def start(self, expert: int, priority: int) -> bool:
        """Queue the read of an absent expert until ``begin``; False if there is no room for it."""
        ...

    def begin(self) -> None:
        """Start the reads that are queued."""
        ...

    def cancel(self, expert: int) -> bool:
        """Drop a read that has not started; True if so."""
        ...


@dataclass(slots=True)
class SpeculationCounts:
    """What reading ahead did so far. ``wasted_bytes`` were read for a layer that chose otherwise."""

    num_reads: int = 0
    num_useful: int = 0
    num_late: int = 0  # useful ones that had not arrived when they were needed
    wasted_bytes: int = 0


class Pace:
    """How long a layer computes for each token (a running mean), and how fast storage delivers."""

    def __init__(
        self,
        bytes_per_s: float = UNKNOWN_BANDWIDTH,
        latency_s: float = 0.0,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.clock = clock
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self._layer_s = {True: UNKNOWN_INTERVAL_S, False: UNKNOWN_INTERVAL_S}  # per token, by is_step
        self._began_s = 0.0
        self._waited_s = 0.0
        self._num_tokens = 0
        self.last_layer_s = 0.0  # from the router before to this one, waiting included; 0: unknown

    def layer_begins(self, num_tokens: int, waited_s: float) -> None:
        """A router has spoken; ``waited_s`` is all the time spent waiting for reads until now."""
        now_s = self.clock()
        self.last_layer_s = 0.0
        if self._num_tokens == num_tokens:
            self.last_layer_s = now_s - self._began_s
            computed_s = (self.last_layer_s - (waited_s - self._waited_s)) / num_tokens
            mean_s = self._layer_s[num_tokens == 1]
            # One long gap, such as a user who thinks, must not spoil the mean.
            self._layer_s[num_tokens == 1] += NEWEST * (min(computed_s, 4 * mean_s) - mean_s)
        self._began_s, self._waited_s, self._num_tokens = now_s, waited_s, num_tokens

    def pause(self) -> None:
        """What comes before the next layer is not to be timed."""
        self._num_tokens = 0

    def read_s(self, num_bytes: int) -> float:
        """Seconds that one read alone takes."""
        return self.latency_s + num_bytes / self.bytes_per_s

    def layer_s(self, num_tokens: int) -> float:
        """Seconds from one router to the next without waiting."""
        return self._layer_s[num_tokens == 1] * num_tokens


class Speculation:
    """Starts reads of forecast experts and learns how far forecasts can be trusted."""

    def __init__(self, cache: Residents, loads: Reads, predictor: Predictor, top_k: int, pace: Pace) -> None:
        self._cache = cache
        self._loads = loads
        self._predictor = predictor
        self._never = isinstance(predictor, NoPredictor)
        self._top_k = top_k
        self._pace = pace
        catalog = cache.catalog
        self._governor = Governor(catalog.num_step_layers)
        self._issue_s = 0.0  # what starting one read takes, a running mean
        self._sizes: list[int] = catalog.num_bytes.tolist()
        self._typical_read_s = pace.read_s(max(self._sizes))
        ranks = [FIRST_CONFIDENCE] * top_k + [NEXT_CONFIDENCE] * top_k
        # How often the expert ranked r was chosen, per layer: no calibration that another text could belie.
        self._confidence = [list(ranks) for _ in range(catalog.num_layers)]
        self._ranked: dict[int, list[int]] = {}  # by position, for single tokens
        self._started: list[set[int]] = [set() for _ in range(catalog.num_layers)]
        self.counts = SpeculationCounts()

    @property
    def is_on(self) -> bool:
        """False without a predictor, and while single tokens are timed without, or were faster without."""
        return self._governor.is_on and not self._never

    def rests(self, position: int, num_tokens: int) -> bool:
        """Whether a layer need not be told of: what costs nothing else would still cost time."""
        if self._never:
            return True
        if num_tokens > 1 or self._ranked or not self._governor.is_resting:
            return False
        if position > self._cache.catalog.first_step:
            self._governor.layer_took(0.0)
        self._pace.pause()
        return True

    def settle(self, position: int, chosen: list[int]) -> set[int]:
        """The router has spoken: drop what it did not ask for. Returns what was read ahead rightly."""
        ranked = self._ranked.pop(position, None)
        if ranked is not None:
            self._cache.residency.reserve(ranked[: self._top_k], False)
            confidence = self._confidence[position]
            for rank, expert in enumerate(ranked):
                confidence[rank] += NEWEST * ((expert in chosen) - confidence[rank])
        started = self._started[position]
        if not started:
            return started
        self._started[position] = set()
        useful = started.intersection(chosen)
        for expert in started - useful:
            if expert not in self._loads or not self._loads.cancel(expert):
                self.counts.wasted_bytes += self._sizes[expert]
        self.counts.num_useful += len(useful)
        self.counts.num_late += sum(expert in self._loads for expert in useful)
        return useful

    def start(self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> None:
        """Forecast the next layers and start the reads that pay."""
        if self._never:
            return
        if len(x) == 1 and position > self._cache.catalog.first_step and self._pace.last_layer_s:
            # What lies between two tokens, such as a user who reads, is no layer's time.
            self._governor.layer_took(self._pace.last_layer_s)
        if self._cache.is_complete or (len(x) == 1 and not self._governor.is_on):
            return
        layer_s = self._pace.layer_s(len(x))
        # Farther layers are forecast worse: look only as far as a read takes.
        lookahead = 1 if self._typical_read_s < AMPLE * layer_s else MAX_LOOKAHEAD
        forecasts = self._predictor.forecast(position, x, expert_ids, weights, lookahead)
        queued_s = self._loads.pending_bytes / self._pace.bytes_per_s
        # The next router speaks a layer's computing later, or when what is demanded has come and is computed.
        demanded_s = self._loads.demanded_bytes / self._pace.bytes_per_s
        next_s = max(layer_s, demanded_s + TAIL_SHARE * layer_s)
        began_s, num_reads = self._pace.clock(), self.counts.num_reads
        ranked = [self._rank(target, scores) for target, scores in forecasts]
        for distance, (experts, probabilities) in enumerate(ranked, 1):
            until_s = next_s + (distance - 1) * layer_s
            queued_s = self._start_paying(experts, probabilities, distance, until_s, queued_s)
        if self.counts.num_reads > num_reads:
            self._loads.begin()
            issue_s = (self._pace.clock() - began_s) / (self.counts.num_reads - num_reads)
            self._issue_s += NEWEST * (issue_s - self._issue_s)

    def _start_paying(
        self, experts: list[int], probabilities: list[float], distance: int, until_s: float, queued_s: float
    ) -> float:
        """Start the reads of one layer's forecast that pay; returns the seconds of reads then queued."""
        for expert, probability in zip(experts, probabilities, strict=False):
            if expert in self._cache or expert in self._loads:
                continue
            read_s = self._pace.read_s(self._sizes[expert])
            if not pays(probability, read_s, until_s - queued_s, self._issue_s):
                break  # those after it are less likely still
            if not self._loads.start(expert, priority=distance):
                break
            queued_s += self._sizes[expert] / self._pace.bytes_per_s
            self._started[self._cache.catalog.position_of(expert)].add(expert)
            self.counts.num_reads += 1
        return queued_s

    def _rank(self, position: int, scores: FloatArray) -> tuple[list[int], list[float]]:
        """Experts by number, likeliest first, each with its probability."""
        first, k = self._cache.catalog.span(position).start, self._top_k
        if len(scores) == 1:
            row = scores[0]
            ranked = [first + expert for expert in native.largest(row, min(2 * k, len(row)))]
            residency = self._cache.residency
            if position in self._ranked:  # forecast from farther away before
                residency.reserve(self._ranked[position][:k], False)
            self._ranked[position] = ranked
            residency.reserve(ranked[:k], True)
            return ranked, self._confidence[position]
        # A chunk of tokens needs the union: an expert is wanted unless every forecast of it was wrong.
        likeliest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        votes = np.bincount(likeliest.ravel(), minlength=scores.shape[1])
        order = np.argsort(-votes, kind="stable")[: np.count_nonzero(votes)]
        trust = sum(self._confidence[position][:k]) / k
        probabilities: list[float] = (1 - (1 - trust) ** votes[order]).tolist()
        return (first + order).tolist(), probabilities


def pays(probability: float, read_s: float, until_needed_s: float, issue_s: float = 0.0) -> bool:
    """Whether starting a read of ``read_s`` is expected to save time.

    If right it hides the part that fits into the time until it is needed; if wrong, the rest of it holds
    up the reads that are needed then, and starting it (``issue_s``) was in vain.
    """
    hidden_s = min(max(until_needed_s, 0.0), read_s)
    in_vain_s = (read_s - hidden_s) + EVICTION_COST * read_s + issue_s
    return probability * hidden_s > (1 - probability) * in_vain_s
