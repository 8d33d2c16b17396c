"""A sparse feed-forward layer, and the seam to where its experts come from.

Letters: T tokens, D width, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.spec import MLPSpec, MoESpec, RouterSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import ExpertWeights, FloatArray, IntArray, Matrix, Rehearsal, Rehearsed

# exp() of more overflows a float; a gate so far down is closed anyway.
_LARGEST_EXPONENT = np.float32(88)


class ExpertRunner(Protocol):
    """Computes routed experts, wherever their weights are. Used by one thread."""

    def run(
        self,
        layer: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None = None,
        seen: FloatArray | None = None,
    ) -> FloatArray:
        """Weighted sum (T, D) of the chosen experts' outputs for x (T, D).

        ``expert_ids`` and ``weights`` are (T, K). The sum runs over k in ascending order, whatever
        the order in which experts become available, so that the result is always the same. ``rehearse`` may
        be called while storage is waited for, to learn what will be needed next. ``seen`` is what the router
        saw, (T, any), where that is not x.

        Raises:
            ExpertReadError: storage failed.
            CorruptStoreError: an expert is damaged.
        """
        ...


class ResidentExperts:
    """All experts in memory: the reference for every other ExpertRunner."""

    def __init__(
        self,
        experts: Mapping[tuple[int, int], ExpertWeights],
        activation: str,
        biases: Mapping[int, FloatArray] | None = None,
    ) -> None:
        """``biases`` by layer (E, 2 F + D), as native.expert_ffn takes them, for those that have any."""
        self._experts = experts
        self._activation = activation
        self._biases = biases or {}

    def run(
        self,
        layer: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None = None,
        seen: FloatArray | None = None,
    ) -> FloatArray:
        """See ExpertRunner."""
        top_k = expert_ids.shape[1]
        parts = np.empty((expert_ids.size, x.shape[1]), np.float32)
        for expert in np.unique(expert_ids).tolist():
            places = np.flatnonzero(expert_ids == expert).astype(np.int32)
            chosen = self._experts[layer, expert]
            biases = self._biases[layer][expert] if layer in self._biases else None
            parts[places] = native.expert_ffn(
                x, *chosen, self._activation, rows=places // top_k, biases=biases
            )
        return native.combine(parts, weights)


class MLP:
    """A dense network, gated or not: a layer without experts, or a shared expert."""

    def __init__(self, prefix: str, activation: str, weights: DenseWeights, is_gated: bool = True) -> None:
        self._activation = activation
        self._gate = weights.matrix(f"{prefix}.gate.weight") if is_gated else None
        self._up, self._down = (weights.matrix(f"{prefix}.{name}.weight") for name in ("up", "down"))
        biases = (weights.optional_vector(f"{prefix}.{name}.bias") for name in ("gate", "up", "down"))
        found = [bias for bias in biases if bias is not None]
        self._biases = np.concatenate(found) if found else None

    def __call__(self, x: FloatArray) -> FloatArray:
        """Output (T, D) for x (T, D)."""
        matrices = self._gate, self._up, self._down
        return native.expert_ffn(x, *matrices, self._activation, biases=self._biases)


class MoELayer:
    """Router, routed experts and the shared expert of one layer."""

    def __init__(self, spec: MoESpec, weights: DenseWeights, layer: int, experts: ExpertRunner) -> None:
        """``spec.beside`` is for ParallelMoELayer."""
        self._spec = spec
        self._layer = layer
        self._experts = experts
        prefix = f"layers.{layer}"
        self._matrix = weights.matrix(f"{prefix}.router.weight")
        self._bias = weights.optional_vector(f"{prefix}.router.bias")
        self._router = build_router(spec.router, weights, layer)
        self.has_routed_only = spec.shared is None and spec.beside is None and not spec.latent_width
        self._shared: MLP | None = None
        self._shared_gate: Matrix | None = None
        if spec.shared is not None:
            shared = spec.shared
            self._shared = MLP(f"{prefix}.shared", shared.activation, weights, shared.is_gated)
            if shared.has_gate:
                self._shared_gate = weights.matrix(f"{prefix}.shared_gate.weight")

    def __call__(self, x: FloatArray) -> FloatArray:
        """Output (T, D) for x (T, D), which has passed the layer's norm."""
        return self.begin(x, x).run()

    def begin(self, x: FloatArray, stream: FloatArray) -> MoETurn:
        """What x (T, D) wants of the experts; x is the residual ``stream`` (T, D) after the layer's norm."""
        return MoETurn(self, x, stream)

    def choose(self, x: FloatArray, stream: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Experts (T, K) for x (T, D), their weights, and the scores (T, E) that they were chosen by."""
        return native.choose_experts(x, self._matrix, self._bias, self._router)

    def given(self, x: FloatArray) -> FloatArray:
        """What the experts get of x (T, D)."""
        return x

    def run_experts(
        self,
        given: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None,
        seen: FloatArray,
    ) -> FloatArray:
        """What the chosen experts make of what they are ``given``, where the router has ``seen`` (T, D)."""
        router = self._spec.router
        if router.capacity:
            weights *= within_capacity(expert_ids, router.num_experts, router.capacity)
        return self._experts.run(self._layer, given, expert_ids, weights, rehearse, seen)

    def run_beside(self, x: FloatArray, stream: FloatArray) -> FloatArray | None:
        """What the shared expert makes of x (T, D); None where there is none."""
        if self._shared is None:
            return None
        y = self._shared(x)
        if self._shared_gate is not None:
            y /= 1 + np.exp(np.minimum(-native.matmul(x, self._shared_gate), _LARGEST_EXPONENT))
        return y

    def join(self, routed: FloatArray, beside: FloatArray | None) -> FloatArray:
        """The output (T, D) of what the experts made, which is overwritten, and what was run beside them."""
        if beside is not None:
            routed += beside
        return routed


class ParallelMoELayer(MoELayer):
    """A sparse layer with a dense network beside it, as Gemma 4 has it.

    Router, dense network and experts each have their own norm of the residual stream, and dense network and
    experts a norm of what they make of it.
    """

    def __init__(
        self, spec: MoESpec, weights: DenseWeights, layer: int, experts: ExpertRunner, eps: float
    ) -> None:
        super().__init__(spec, weights, layer, experts)
        assert spec.beside is not None, "a layer without a network beside its experts"
        self._eps = eps
        prefix = f"layers.{layer}"
        self._dense = MLP(f"{prefix}.mlp", spec.beside.activation, weights, spec.beside.is_gated)
        self._dense_norm = weights.vector(f"{prefix}.dense_norm.weight")
        self._dense_post_norm = weights.vector(f"{prefix}.dense_post_norm.weight")
        self._expert_post_norm = weights.vector(f"{prefix}.expert_post_norm.weight")
        self._router_norm = router_norm(spec, weights, layer)

    def choose(self, x: FloatArray, stream: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """See MoELayer; the router has a norm of its own."""
        return super().choose(native.rms_norm(stream, self._router_norm, self._eps), stream)

    def run_beside(self, x: FloatArray, stream: FloatArray) -> FloatArray:
        """What the dense network makes of the stream (T, D), after its norm."""
        y = self._dense(native.rms_norm(stream, self._dense_norm, self._eps))
        return native.rms_norm(y, self._dense_post_norm, self._eps)

    def join(self, routed: FloatArray, beside: FloatArray | None) -> FloatArray:
        """See MoELayer."""
        return super().join(native.rms_norm(routed, self._expert_post_norm, self._eps), beside)


class LatentMoELayer(MoELayer):
    """A sparse layer whose experts work in a narrower space: one matrix leads there, another back (Nemotron 3
    Super). Router and shared expert see what other layers' do.
    """

    def __init__(self, spec: MoESpec, weights: DenseWeights, layer: int, experts: ExpertRunner) -> None:
        super().__init__(spec, weights, layer, experts)
        prefix = f"layers.{layer}.latent"
        self._into, self._back = (
            (weights.matrix(f"{prefix}.{name}.weight"), weights.optional_vector(f"{prefix}.{name}.bias"))
            for name in ("in", "out")
        )

    def given(self, x: FloatArray) -> FloatArray:
        """See MoELayer."""
        return _projected(x, *self._into)

    def join(self, routed: FloatArray, beside: FloatArray | None) -> FloatArray:
        """See MoELayer."""
        return super().join(_projected(routed, *self._back), beside)


def _projected(x: FloatArray, matrix: Matrix, bias: FloatArray | None) -> FloatArray:
    y = native.matmul(x, matrix)
    if bias is not None:
        y += bias
    return y


def router_norm(spec: MoESpec, weights: DenseWeights, layer: int) -> FloatArray:
    """(D,): what the stream, mostly over its root mean square, is multiplied by before the router sees it."""
    if not spec.router.has_input_scale:
        norm = weights.optional_vector(f"layers.{layer}.ffn_norm.weight")
        num_columns = weights.matrix(f"layers.{layer}.router.weight").num_cols
        return np.ones(num_columns, np.float32) if norm is None else norm
    scale = weights.vector(f"layers.{layer}.router.input_scale")
    return np.asarray(scale * len(scale) ** -0.5, np.float32)


class MoETurn:
    """One pass of x (T, D) through a sparse layer: chosen at once, run by its experts at most once."""

    def __init__(self, layer: MoELayer, x: FloatArray, stream: FloatArray) -> None:
        self._layer = layer
        self._x = x
        self._given = layer.given(x)
        self._stream = stream
        self._expert_ids, self._weights, self._scores = layer.choose(x, stream)
        self._beside: FloatArray | None = None
        self._has_beside = False

    def run(self, rehearse: Rehearsal | None = None) -> FloatArray:
        """The layer's output (T, D); ``rehearse`` as in ExpertRunner."""
        given, ids, weights = self._given, self._expert_ids, self._weights
        return self.complete(self._layer.run_experts(given, ids, weights, rehearse, self._x))

    def complete(self, routed: FloatArray) -> FloatArray:
        """The layer's output, given the sum of the chosen experts' outputs (rehearsing: of those in memory).

        ``routed`` is overwritten.
        """
        if self._layer.has_routed_only:
            return routed
        if not self._has_beside:
            self._beside, self._has_beside = self._layer.run_beside(self._x, self._stream), True
        return self._layer.join(routed, self._beside)

    @property
    def rehearsed(self) -> Rehearsed:
        """What a rehearsal tells of this layer."""
        return self._given, self._scores, self._expert_ids, self._weights


def build_router(spec: RouterSpec, weights: DenseWeights, layer: int) -> native.Router:
    """The rule of a layer's router, with its arrays."""
    prefix = f"layers.{layer}.router"
    return native.Router(
        spec.num_experts,
        spec.top_k,
        spec.score,
        choice_bias=weights.vector(f"{prefix}.choice_bias") if spec.has_choice_bias else None,
        expert_scale=weights.vector(f"{prefix}.expert_scale") if spec.has_expert_scale else None,
        num_groups=spec.num_groups,
        kept_groups=spec.kept_groups,
        groups_by_highest=spec.groups_by_highest,
        renormalize=spec.renormalize,
        sum_eps=spec.sum_eps,
        is_eps_minimum=spec.is_eps_minimum,
        scale=spec.scale,
        jitter=spec.jitter,
    )


def build_feed_forward(
    spec: MoESpec | MLPSpec, weights: DenseWeights, layer: int, experts: ExpertRunner, eps: float
) -> MoELayer | MLP:
    """The feed-forward part of a layer; ``eps`` is that of its norms."""
    if isinstance(spec, MoESpec):
        if spec.beside is not None:
            return ParallelMoELayer(spec, weights, layer, experts, eps)
        kind = LatentMoELayer if spec.latent_width else MoELayer
        return kind(spec, weights, layer, experts)
    return MLP(f"layers.{layer}.mlp", spec.activation, weights, spec.is_gated)


def within_capacity(expert_ids: IntArray, num_experts: int, capacity: int) -> NDArray[np.bool_]:
    """Which choices (T, K) are among the first ``capacity`` tokens that chose their expert (Switch
    Transformers, arXiv 2101.03961, section 2.2).
    """
    is_chosen = (expert_ids[:, :, None] == np.arange(num_experts)).any(axis=1)
    place: IntArray = np.cumsum(is_chosen, axis=0, dtype=np.int32)
    return np.take_along_axis(place, expert_ids.astype(np.int64), axis=1) <= capacity
