"""Attention of one layer: to the tokens before, or to all of a text.

Letters: T rows, D width, H query heads, G key/value heads, C head dimension, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgemoe import native
from edgemoe.models.mixers.mixer import MixerParts
from edgemoe.models.segments import Segment
from edgemoe.models.spec import AttentionSpec
from edgemoe.models.state import Keys, Slots
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray, Matrix

# As native.mixers.AttentionLayer.run takes a segment.
_Described = tuple[int, int, Keys, Keys, int, "tuple[FloatArray, FloatArray] | None", "FloatArray | None"]


class Attention:
    """Norm, projections, rotation, cache and attention of one layer of a decoder; see TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: AttentionSpec = parts.spec
        weights, prefix = parts.weights, f"layers.{parts.layer}.attention"
        self._place = parts.place
        self._rotation = parts.rotation
        self._bias = parts.distance_bias
        norms = None
        if spec.qk_norm != "none":
            norms = weights.vector(f"{prefix}.q_norm.weight"), weights.vector(f"{prefix}.k_norm.weight")

        def projection(p: str) -> tuple[Matrix, FloatArray | None]:
            return weights.matrix(f"{prefix}.{p}.weight"), weights.optional_vector(f"{prefix}.{p}.bias")

        self._layer = native.mixers.AttentionLayer(
            parts.norm,
            parts.eps,
            projection("q"),
            projection("k"),
            None if spec.keys_are_values else projection("v"),
            projection("o"),
            norms,
            has_norms_of_heads=spec.qk_norm == "head",
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            clip=spec.clip_qkv or 0.0,
            scale=spec.scale,
            window=spec.window,
            has_gate=spec.has_gate,
            normalizes_values=spec.normalizes_values,
            sinks=weights.vector(f"{prefix}.sinks.weight") if spec.has_sinks else None,
            post_norm=parts.post_norm,
            branch_scale=parts.branch_scale,
            norm_bias=weights.optional_vector(f"layers.{parts.layer}.attention_norm.bias"),
        )

    def add_to(self, x: FloatArray, segments: Sequence[Segment]) -> None:
        """See TokenMixer."""
        self._layer.run(x, [self._described(segment) for segment in segments])

    def rehearse(self, x: FloatArray, segment: Segment) -> None:
        """See TokenMixer: what is written is replaced when the layer runs itself."""
        self._layer.run(x, [self._described(segment)])

    def _described(self, segment: Segment) -> _Described:
        state, num_rows = segment.state, segment.num_rows
        slots = state.layers[self._place]
        assert isinstance(slots, Slots), "a text's state was made for another model"
        start = slots.place(state.length, num_rows)
        angles, bias = segment.angles(self._rotation), segment.bias(self._bias)
        return segment.first, num_rows, slots.keys, slots.values, start, angles, bias


class FullAttention:
    """Attention to all of a text: of an encoder to itself, or of a decoder to what the encoder made.

    Without norms, biases of projections and rotation, which no family with an encoder has.
    """

    def __init__(self, spec: AttentionSpec, weights: DenseWeights, prefix: str) -> None:
        self._spec = spec
        self._matrices = {p: weights.matrix(f"{prefix}.{p}.weight") for p in "qkvo"}

    def remember(self, states: FloatArray, keys: Keys, values: Keys) -> None:
        """Write the keys and values of states (T, D) to the first T slots of (G, S, C) each."""
        shape = (len(states), self._spec.num_kv_heads, self._spec.head_dim)
        native.store_kv(keys, native.matmul(states, self._matrices["k"]).reshape(shape), 0)
        native.store_kv(values, native.matmul(states, self._matrices["v"]).reshape(shape), 0)

    def __call__(
        self, x: FloatArray, keys: Keys, values: Keys, num_keys: int, bias: FloatArray | None = None
    ) -> FloatArray:
        """What x (T, D) finds among the first ``num_keys`` slots: (T, D)."""
        spec = self._spec
        q = native.matmul(x, self._matrices["q"]).reshape(len(x), spec.num_heads, spec.head_dim)
        y = native.attention(q, keys, values, 0, spec.scale, num_keys=num_keys, bias=bias)
        return native.matmul(y.reshape(len(x), -1), self._matrices["o"])
