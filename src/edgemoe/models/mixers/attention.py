"""Attention of one layer: to the tokens before, or to all of a text.

Letters: T rows, D width, H query heads, G key/value heads, C head dimension, S slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgemoe import native
from edgemoe.models.layer_state import Keys, LayerState, Slots, StateSize
from edgemoe.models.mixer_spec import RopeSpec, TensorSpec, filled, filled_rows
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.segments import Segment
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray, Matrix

# As native.mixers.AttentionLayer.run takes a segment.
_Described = tuple[int, int, Keys, Keys, int, "tuple[FloatArray, FloatArray] | None", "FloatArray | None"]


@dataclass(frozen=True)
class AttentionSpec:
    """Grouped-query attention of one layer; ``window`` 0 means unlimited.

    Scores are multiplied by ``score_scale``, by default C^-0.5. With a gate the rows of q are, head by head,
    C of the query and C of a gate, whose logistic function multiplies what the head finds (Qwen3-Next).
    ``keys_are_values``: there is no matrix v, values are the keys as projected; ``normalizes_values`` divides
    each head of the values by its root mean square (Gemma 4). Sinks are a learnt score per head, of nothing
    (gpt-oss). ``value_dim``: of a head's values, where it is not C; ``value_scale`` multiplies them (MiMo).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: Literal["none", "head", "projection"] = "none"
    has_qkv_bias: bool = False
    has_o_bias: bool = False
    window: int = 0
    clip_qkv: float | None = None
    rope: RopeSpec | None = None
    score_scale: float | None = None
    has_gate: bool = False
    has_sinks: bool = False
    keys_are_values: bool = False
    normalizes_values: bool = False
    value_dim: int = 0
    value_scale: float = 1.0

    @property
    def of_value(self) -> int:
        """Entries of a head of the values."""
        return self.value_dim or self.head_dim

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return float(self.head_dim**-0.5) if self.score_scale is None else self.score_scale

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        yield from self.tensors_of(f"{prefix}.attention", width)

    def tensors_of(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """As ``tensors``, under a prefix of their own."""
        q_width, k_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        v_width = self.num_kv_heads * self.of_value
        rows_of = {"q": q_width * (2 if self.has_gate else 1), "k": k_width, "v": v_width}
        if self.keys_are_values:
            del rows_of["v"]
        for name, rows in rows_of.items():
            yield TensorSpec(f"{prefix}.{name}.weight", (rows, width), "matrix")
            if self.has_qkv_bias:
                yield TensorSpec(f"{prefix}.{name}.bias", (rows,), "precise")
        yield filled_rows(f"{prefix}.o.weight", width, self.num_heads * self.of_value)
        if self.has_o_bias:
            yield TensorSpec(f"{prefix}.o.bias", (width,), "precise")
        if self.has_sinks:
            yield TensorSpec(f"{prefix}.sinks.weight", (self.num_heads,), "precise")
        if self.qk_norm != "none":
            per_head = self.qk_norm == "head"
            for name, rows in (("q_norm", q_width), ("k_norm", k_width)):
                shape = (self.head_dim if per_head else rows,)
                yield TensorSpec(f"{prefix}.{name}.weight", shape, "precise")

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        name = "v_head_dim" if self.value_dim else "head_dim"
        return {f"heads times {name}": self.num_heads * self.of_value}

    def new_state(self, size: StateSize) -> LayerState:
        """See MixerSpec."""
        return Slots(self.num_kv_heads, self.head_dim, size, self.window, self.of_value)

    def state_num_bytes(self, size: StateSize) -> int:
        """See MixerSpec."""
        heads, dims = self.num_kv_heads, (self.head_dim, self.of_value)
        return Slots.used_num_bytes(heads, dims, size, self.window)

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """See MixerSpec."""
        return native.mixers.AttentionLayer.working_bytes(
            num_rows,
            num_keys,
            width=width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            value_dim=self.of_value,
            has_gate=self.has_gate,
        )

    def build(self, parts: MixerParts) -> TokenMixer:
        """See MixerSpec."""
        return Attention(parts)


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
            parts.optional_norm,
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
            value_dim=spec.of_value,
            value_scale=spec.value_scale,
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
        angles = segment.angles(self._rotation)
        bias = None if self._bias is None else self._bias(state.num_slots)
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
        found = y.reshape(len(x), -1)
        missing = filled(found.shape[1]) - found.shape[1]
        if missing:
            found = np.pad(found, ((0, 0), (0, missing)))
        return native.matmul(found, self._matrices["o"])
