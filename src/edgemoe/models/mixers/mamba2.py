"""Mamba-2: spec and mixer. Letters as in native.mixers.Mamba2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgemoe import native
from edgemoe.models.mixer_spec import TensorSpec, filled_rows
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.mixers.recurrent_mixer import RecurrentMixer, RecurrentSpec


@dataclass(frozen=True)
class Mamba2Spec(RecurrentSpec):
    """See MixerSpec. ``step_limits``: what a token's step is kept between."""

    num_heads: int
    head_dim: int
    num_groups: int
    state_dim: int
    num_taps: int
    has_conv_bias: bool = True
    has_proj_bias: bool = False
    step_limits: tuple[float, float] = (0.0, math.inf)
    activation: str = "silu"  # of what the convolution gives

    @property
    def inner_width(self) -> int:
        """All heads of a token."""
        return self.num_heads * self.head_dim

    @property
    def num_channels(self) -> int:
        """Values of a token, what they are written along and what is read along, together."""
        return self.inner_width + 2 * self.num_groups * self.state_dim

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        prefix = f"{prefix}.mamba"
        yield TensorSpec(f"{prefix}.z.weight", (self.inner_width, width), "matrix")
        yield TensorSpec(f"{prefix}.mixed.weight", (self.num_channels, width), "matrix")
        # Small, and what it says is raised to a power: it stays as precise as norms.
        yield TensorSpec(f"{prefix}.steps.weight", (self.num_heads, width), "precise")
        for name in ("decay", "dt_bias", "skip"):
            yield TensorSpec(f"{prefix}.{name}", (self.num_heads,), "precise")
        taps = (self.num_channels, self.num_taps)
        yield TensorSpec(f"{prefix}.conv.weight", (taps[0] * taps[1],), "precise", taps)
        if self.has_conv_bias:
            yield TensorSpec(f"{prefix}.conv.bias", (self.num_channels,), "precise")
        yield TensorSpec(f"{prefix}.norm.weight", (self.inner_width,), "precise")
        yield filled_rows(f"{prefix}.out.weight", width, self.inner_width)
        if self.has_proj_bias:
            rows = self.inner_width + self.num_channels + self.num_heads
            yield TensorSpec(f"{prefix}.in.bias", (rows,), "precise")
            yield TensorSpec(f"{prefix}.out.bias", (width,), "precise")

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        return {"Mamba heads times their dimension": self.inner_width}

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """See MixerSpec."""
        return native.mixers.Mamba2.working_bytes(
            num_rows,
            width=width,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            num_groups=self.num_groups,
            state_dim=self.state_dim,
        )

    @property
    def record_width(self) -> int:
        """See RecurrentSpec."""
        return self.num_channels + self.num_heads

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """See RecurrentSpec."""
        return {
            "state": (self.num_heads, self.state_dim, self.head_dim),
            "tail": (self.num_taps - 1, self.num_channels),
        }

    def build(self, parts: MixerParts) -> TokenMixer:
        """See MixerSpec."""
        return Mamba2(parts)


class Mamba2(RecurrentMixer):
    """See TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: Mamba2Spec = parts.spec
        assert not parts.has_post_norm, "no family has a norm after its Mamba layers"
        weights, prefix = parts.weights, f"layers.{parts.layer}.mamba"
        taps = weights.vector(f"{prefix}.conv.weight").reshape(spec.num_channels, spec.num_taps)
        compiled = native.mixers.Mamba2(
            parts.norm,
            parts.eps,
            weights.matrix(f"{prefix}.z.weight"),
            weights.matrix(f"{prefix}.mixed.weight"),
            weights.matrix(f"{prefix}.steps.weight"),
            weights.optional_vector(f"{prefix}.in.bias"),
            weights.vector(f"{prefix}.decay"),
            weights.vector(f"{prefix}.dt_bias"),
            weights.vector(f"{prefix}.skip"),
            np.ascontiguousarray(taps.T),
            weights.optional_vector(f"{prefix}.conv.bias"),
            weights.vector(f"{prefix}.norm.weight"),
            weights.matrix(f"{prefix}.out.weight"),
            weights.optional_vector(f"{prefix}.out.bias"),
            num_heads=spec.num_heads,
            head_dim=spec.head_dim,
            num_groups=spec.num_groups,
            state_dim=spec.state_dim,
            step_low=spec.step_limits[0],
            step_high=spec.step_limits[1],
            branch_scale=parts.branch_scale,
            activation=spec.activation,
        )
        super().__init__(parts.place, compiled)
