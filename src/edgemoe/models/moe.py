"""A sparse feed-forward layer, and the seam to where its experts come from.

Letters: T tokens, D width, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.spec import MLPSpec, MoESpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import ExpertWeights, FloatArray, IntArray, Matrix, Rehearsal, Rehearsed


class ExpertRunner(Protocol):
    """Computes routed experts, wherever their weights are. Used by one thread."""

    def run(
        self,
        layer: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None = None,
    ) -> FloatArray:
        """Weighted sum (T, D) of the chosen experts' outputs for x (T, D).

        ``expert_ids`` and ``weights`` are (T, K). The sum runs over k in ascending order, whatever
        the order in which experts become available, so that the result is always the same. ``rehearse`` may
        be called while storage is waited for, to learn what will be needed next.

        Raises:
            ExpertReadError: storage failed.
            CorruptStoreError: an expert is damaged.
        """
        ...


class ResidentExperts:
    """All experts in memory: the reference for every other ExpertRunner."""

    def __init__(self, experts: Mapping[tuple[int, int], ExpertWeights], activation: str) -> None:
        self._experts = experts
        self._activation = activation

    def run(
        self,
        layer: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None = None,
    ) -> FloatArray:
        """See ExpertRunner."""
        top_k = expert_ids.shape[1]
        parts = np.empty((expert_ids.size, x.shape[1]), np.float32)
        for expert in np.unique(expert_ids).tolist():
            places = np.flatnonzero(expert_ids == expert).astype(np.int32)
            chosen = self._experts[layer, expert]
            parts[places] = native.expert_ffn(x, *chosen, self._activation, rows=places // top_k)
        return native.combine(parts, weights)


class MLP:
    """A dense network, gated or not: a layer without experts, or a shared expert."""

    def __init__(self, prefix: str, activation: str, weights: DenseWeights, is_gated: bool = True) -> None:
        self._activation = activation
        self._gate = weights.matrix(f"{prefix}.gate.weight") if is_gated else None
        self._up, self._down = (weights.matrix(f"{prefix}.{name}.weight") for name in ("up", "down"))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Output (T, D) for x (T, D)."""
        return native.expert_ffn(x, self._gate, self._up, self._down, self._activation)


class MoELayer:
    """Router, routed experts and the shared expert of one layer."""

    def __init__(self, spec: MoESpec, weights: DenseWeights, layer: int, experts: ExpertRunner) -> None:
        self._spec = spec
        self._layer = layer
        self._experts = experts
        prefix = f"layers.{layer}"
        self._router = weights.matrix(f"{prefix}.router.weight")
        self._router_bias = weights.optional_vector(f"{prefix}.router.bias")
        self._shared: MLP | None = None
        self._shared_gate: Matrix | None = None
        if spec.shared is not None:
            self._shared = MLP(f"{prefix}.shared", spec.expert.activation, weights)
            if spec.shared.is_gated:
                self._shared_gate = weights.matrix(f"{prefix}.shared_gate.weight")

    def __call__(self, x: FloatArray, rehearse: Rehearsal | None = None) -> FloatArray:
        """Output (T, D) for x (T, D)."""
        router = self._spec.router
        ids, weights = self._choose(x)
        if router.capacity:
            weights *= within_capacity(ids, router.num_experts, router.capacity)
        if self._shared is None:
            return self._experts.run(self._layer, x, ids, weights, rehearse)
        shared: FloatArray | None = None

        def rehearse_with_shared(added: FloatArray) -> Rehearsed | None:
            nonlocal shared
            assert rehearse is not None, "called by the runner that it was given to"
            if shared is not None:
                return rehearse(added)  # of the layers after this one
            shared = self.run_shared(x)
            return rehearse(added + shared)

        y = self._experts.run(self._layer, x, ids, weights, rehearse and rehearse_with_shared)
        y += self.run_shared(x) if shared is None else shared
        return y

    def rehearse(self, x: FloatArray) -> Rehearsed:
        """What the router would make of x (1, D)."""
        scores = native.matmul(x, self._router)
        if self._router_bias is not None:
            scores += self._router_bias
        return x, scores, *self._choose(x)

    def _choose(self, x: FloatArray) -> tuple[IntArray, FloatArray]:
        router = self._spec.router
        return native.choose_experts(
            x, self._router, self._router_bias, router.top_k, router.rule, router.renormalize
        )

    @property
    def has_shared(self) -> bool:
        """Whether a shared expert sees every token."""
        return self._shared is not None

    def run_shared(self, x: FloatArray) -> FloatArray:
        """What the shared expert adds to x (T, D)."""
        assert self._shared is not None, "this layer has no shared expert"
        y = self._shared(x)
        if self._shared_gate is not None:
            y /= 1 + np.exp(-native.matmul(x, self._shared_gate))
        return y


def build_feed_forward(
    spec: MoESpec | MLPSpec, weights: DenseWeights, layer: int, experts: ExpertRunner
) -> MoELayer | MLP:
    """The feed-forward part of a layer."""
    if isinstance(spec, MoESpec):
        return MoELayer(spec, weights, layer, experts)
    return MLP(f"layers.{layer}.mlp", spec.activation, weights, spec.is_gated)


def within_capacity(expert_ids: IntArray, num_experts: int, capacity: int) -> NDArray[np.bool_]:
    """Which choices (T, K) are among the first ``capacity`` tokens that chose their expert (Switch
    Transformers, arXiv 2101.03961, section 2.2).
    """
    is_chosen = (expert_ids[:, :, None] == np.arange(num_experts)).any(axis=1)
    place: IntArray = np.cumsum(is_chosen, axis=0, dtype=np.int32)
    return np.take_along_axis(place, expert_ids.astype(np.int64), axis=1) <= capacity
