"""Gated delta net: spec and mixer. Letters as in native.mixers.GatedDeltaNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgemoe import native
from edgemoe.models.mixer_spec import TensorSpec, filled_rows
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.mixers.recurrent_mixer import RecurrentMixer, RecurrentSpec


@dataclass(frozen=True)
class GatedDeltaNetSpec(RecurrentSpec):
    """See MixerSpec. ``num_taps`` of the convolution over queries, keys and values."""

    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    num_taps: int
    activation: str = "silu"  # of what the convolution gives

    @property
    def num_channels(self) -> int:
        """Queries, keys and values of a token together."""
        return 2 * self.num_key_heads * self.key_dim + self.inner_width

    @property
    def inner_width(self) -> int:
        """All value heads of a token."""
        return self.num_value_heads * self.value_dim

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        prefix = f"{prefix}.delta"
        yield TensorSpec(f"{prefix}.qkv.weight", (self.num_channels, width), "matrix")
        yield TensorSpec(f"{prefix}.z.weight", (self.inner_width, width), "matrix")
        # Small, and what they say is raised to powers: they stay as precise as norms.
        yield TensorSpec(f"{prefix}.beta.weight", (self.num_value_heads, width), "precise")
        yield TensorSpec(f"{prefix}.alpha.weight", (self.num_value_heads, width), "precise")
        yield TensorSpec(f"{prefix}.decay", (self.num_value_heads,), "precise")
        yield TensorSpec(f"{prefix}.dt_bias", (self.num_value_heads,), "precise")
        taps = (self.num_channels, self.num_taps)
        yield TensorSpec(f"{prefix}.conv.weight", (taps[0] * taps[1],), "precise", taps)
        yield TensorSpec(f"{prefix}.norm.weight", (self.value_dim,), "precise")
        yield filled_rows(f"{prefix}.out.weight", width, self.inner_width)

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        return {"linear value heads times their dimension": self.inner_width}

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """See MixerSpec."""
        return native.mixers.GatedDeltaNet.working_bytes(
            num_rows,
            width=width,
            num_key_heads=self.num_key_heads,
            num_value_heads=self.num_value_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
        )

    @property
    def record_width(self) -> int:
        """See RecurrentSpec."""
        return self.num_channels + 2 * self.num_value_heads

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """See RecurrentSpec."""
        return {
            "state": (self.num_value_heads, self.key_dim, self.value_dim),
            "tail": (self.num_taps - 1, self.num_channels),
        }

    def build(self, parts: MixerParts) -> TokenMixer:
        """See MixerSpec."""
        return GatedDeltaNet(parts)


class GatedDeltaNet(RecurrentMixer):
    """See TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: GatedDeltaNetSpec = parts.spec
        assert not parts.has_post_norm, "no family has a norm after its delta net"
        weights, prefix = parts.weights, f"layers.{parts.layer}.delta"
        taps = weights.vector(f"{prefix}.conv.weight").reshape(spec.num_channels, spec.num_taps)
        compiled = native.mixers.GatedDeltaNet(
            parts.norm,
            parts.eps,
            weights.matrix(f"{prefix}.qkv.weight"),
            weights.matrix(f"{prefix}.z.weight"),
            weights.matrix(f"{prefix}.beta.weight"),
            weights.matrix(f"{prefix}.alpha.weight"),
            weights.vector(f"{prefix}.decay"),
            weights.vector(f"{prefix}.dt_bias"),
            np.ascontiguousarray(taps.T),
            weights.vector(f"{prefix}.norm.weight"),
            weights.matrix(f"{prefix}.out.weight"),
            num_key_heads=spec.num_key_heads,
            num_value_heads=spec.num_value_heads,
            key_dim=spec.key_dim,
            value_dim=spec.value_dim,
            branch_scale=parts.branch_scale,
            activation=spec.activation,
        )
        super().__init__(parts.place, compiled)
