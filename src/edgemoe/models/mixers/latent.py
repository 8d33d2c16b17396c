"""Latent attention (DeepSeek-V2, arXiv 2405.04434): the cache holds one vector for all heads of a token.

Letters: T rows, D width, H heads, Q rank of queries, L latent dimension, N and R plain and rotated dimension
of a query's head, C dimension of a value's head, S slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.layer_state import LayerState, StateSize
from edgemoe.models.lazy_memory import PagedMemory, slot_memory
from edgemoe.models.mixer_spec import RopeSpec, TensorSpec, filled, filled_tensor
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.segments import Segment
from edgemoe.native import ROW_GROUP, FloatArray, Matrix

# The norms between matrices have the default of their class, whatever the configuration says of the others.
INNER_EPS = 1e-6


@dataclass(frozen=True)
class LatentSpec:
    """Latent attention of one layer; ``query_rank`` 0: queries are made by one matrix.

    ``pairs_side_by_side``: in checkpoints, rotated pairs are neighbours rather than half of R apart.
    ``has_bias``: of q_a, kv_a and o. ``has_head_gate``: a number a head, between 0 and 1, multiplies what the
    head finds (Ling 3).
    """

    num_heads: int
    query_rank: int
    latent_dim: int
    plain_dim: int
    rotary_dim: int
    value_dim: int
    scale: float
    rope: RopeSpec | None = None
    has_bias: bool = False
    pairs_side_by_side: bool = True
    has_head_gate: bool = False

    @property
    def padded_plain_dim(self) -> int:
        """N rounded up to the columns that packed matrices have."""
        return filled(self.plain_dim)

    @property
    def padded_value_dim(self) -> int:
        """C rounded up to the rows by which packed matrices can be parted."""
        return -(-self.value_dim // ROW_GROUP) * ROW_GROUP

    @property
    def padded_latent_dim(self) -> int:
        """L rounded up in the same way, where it is rows."""
        return -(-self.latent_dim // ROW_GROUP) * ROW_GROUP

    @property
    def key_dim(self) -> int:
        """Entries that the cache has for a token."""
        return self.latent_dim + self.rotary_dim

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        q_width = self.num_heads * (self.plain_dim + self.rotary_dim)
        matrices = {
            "q": (q_width, width),
            "q_a": (filled(self.query_rank), width),
            "q_b": (q_width, filled(self.query_rank)),
            "kv_a": (self.key_dim, width),
            "k_b": (self.num_heads * self.padded_latent_dim, self.padded_plain_dim),
            "v_b": (self.num_heads * self.padded_value_dim, filled(self.latent_dim)),
            "o": (width, filled(self.num_heads * self.value_dim)),
        }
        stored = {
            **matrices,
            "q_a": (self.query_rank, width),
            "q_b": (q_width, self.query_rank),
            "v_b": (self.num_heads * self.padded_value_dim, self.latent_dim),
            "o": (width, self.num_heads * self.value_dim),
        }
        for name in ("q_a", "q_b") if self.query_rank == 0 else ("q",):
            del matrices[name]
        for name, shape in matrices.items():
            yield filled_tensor(f"{prefix}.attention.{name}.weight", stored[name], shape)
            if self.has_bias and name in ("q_a", "kv_a", "o"):
                bias = f"{prefix}.attention.{name}.bias"
                yield filled_tensor(bias, stored[name][:1], shape[:1], "precise")
        if self.has_head_gate:
            # Small, and it weighs all that a head finds.
            yield TensorSpec(f"{prefix}.attention.head_gate.weight", (self.num_heads, width), "precise")
        if self.query_rank:
            yield TensorSpec(f"{prefix}.attention.q_a_norm.weight", (self.query_rank,), "precise")
        yield TensorSpec(f"{prefix}.attention.kv_a_norm.weight", (self.latent_dim,), "precise")

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        return {
            "kv_lora_rank": self.latent_dim,
            "heads times v_head_dim": self.num_heads * self.value_dim,
            "q_lora_rank": self.query_rank,
        }

    def new_state(self, size: StateSize) -> LayerState:
        """See MixerSpec."""
        return Latents(self.key_dim, size)

    def state_num_bytes(self, size: StateSize) -> int:
        """See MixerSpec: (L + R) entries for each token."""
        used = size.num_slots if size.num_used is None else min(size.num_slots, size.num_used)
        return PagedMemory.num_bytes([(1, size.num_slots, self.key_dim)], size.dtype, used)

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """See MixerSpec."""
        return native.mixers.LatentLayer.working_bytes(
            num_rows,
            num_keys,
            width=width,
            num_heads=self.num_heads,
            query_rank=self.query_rank,
            latent_dim=self.latent_dim,
            plain_dim=self.plain_dim,
            rotary_dim=self.rotary_dim,
            value_dim=self.value_dim,
        )

    def build(self, parts: MixerParts) -> TokenMixer:
        """See MixerSpec."""
        return LatentAttention(parts)


class Latents:
    """Latent vectors and rotated keys (1, S, L + R) of all tokens; see LayerState."""

    def __init__(self, key_dim: int, size: StateSize) -> None:
        self._memory = slot_memory(((1, size.num_slots, key_dim),), size.dtype, size.pages)
        (self.cache,) = self._memory.arrays

    @property
    def num_bytes(self) -> int:
        """See LayerState."""
        return self.cache.nbytes

    def reachable(self, length: int) -> int:
        """See LayerState: any length."""
        return length

    def rewind(self, length: int) -> None:
        """See LayerState: what is written next replaces what is forgotten."""

    def copy_from(self, other: Latents, length: int) -> None:
        """See LayerState."""
        self._memory.begin_as(other._memory, length)

    def resume(self, length: int) -> None:
        """See StoredState."""

    def pieces(self, length: int) -> list[NDArray[Any]]:
        """See StoredState."""
        return [self.cache[:, :length]]

    def trim(self, num_tokens: int) -> None:
        """See LayerState."""
        self._memory.trim(min(num_tokens, self.cache.shape[1]))

    def keep(self) -> None:
        """See LayerState: latents of all tokens are there anyway."""


class LatentAttention:
    """Norm, projections, rotation, cache and latent attention of one layer; see TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: LatentSpec = parts.spec
        weights, prefix = parts.weights, f"layers.{parts.layer}.attention"
        self._place = parts.place
        self._rotation = parts.rotation

        def projection(name: str) -> tuple[Matrix, FloatArray | None]:
            return weights.matrix(f"{prefix}.{name}.weight"), weights.optional_vector(f"{prefix}.{name}.bias")

        q_a = None
        if spec.query_rank:
            q_a = projection("q_a"), weights.vector(f"{prefix}.q_a_norm.weight")
        self._layer = native.mixers.LatentLayer(
            parts.norm,
            parts.eps,
            q_a,
            weights.matrix(f"{prefix}.{'q_b' if spec.query_rank else 'q'}.weight"),
            projection("kv_a"),
            weights.vector(f"{prefix}.kv_a_norm.weight"),
            weights.matrix(f"{prefix}.k_b.weight"),
            weights.matrix(f"{prefix}.v_b.weight"),
            projection("o"),
            num_heads=spec.num_heads,
            plain_dim=spec.plain_dim,
            rotary_dim=spec.rotary_dim,
            value_dim=spec.value_dim,
            scale=spec.scale,
            inner_eps=INNER_EPS,
            post_norm=parts.post_norm,
            branch_scale=parts.branch_scale,
            gate=weights.matrix(f"{prefix}.head_gate.weight") if spec.has_head_gate else None,
        )

    def add_to(self, x: FloatArray, segments: Sequence[Segment]) -> None:
        """See TokenMixer."""
        self._layer.run(x, [self._described(segment) for segment in segments])

    def rehearse(self, x: FloatArray, segment: Segment) -> None:
        """See TokenMixer: what is written is replaced when the layer runs itself."""
        self._layer.run(x, [self._described(segment)])

    def _described(self, segment: Segment) -> tuple[Any, ...]:
        """As native.mixers.LatentLayer.run takes a segment."""
        latents = segment.state.layers[self._place]
        assert isinstance(latents, Latents), "a text's state was made for another model"
        angles = segment.angles(self._rotation)
        return segment.first, segment.num_rows, latents.cache, segment.position, angles
