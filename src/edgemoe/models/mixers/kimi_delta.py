"""Kimi delta attention: spec and mixer. Letters as in native.mixers.KimiDeltaNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgemoe import native
from edgemoe.models.mixer_spec import TensorSpec, filled, filled_rows
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.mixers.recurrent_mixer import RecurrentMixer, RecurrentSpec
from edgemoe.native import Matrix


@dataclass(frozen=True)
class KimiDeltaSpec(RecurrentSpec):
    """See MixerSpec. ``rank`` of what makes gates and forgetting; 0: one matrix each.

    ``lowest_log``: the bound of logarithms of decay, 0 for none.
    """

    num_heads: int
    head_dim: int
    num_taps: int
    rank: int = 0
    lowest_log: float = 0.0
    activation: str = "silu"  # of what the convolution gives

    @property
    def inner_width(self) -> int:
        """All heads of a token: its queries, or its keys, or its values."""
        return self.num_heads * self.head_dim

    @property
    def padded_rank(self) -> int:
        """The rank rounded up to the columns that packed matrices have."""
        return filled(self.rank)

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        prefix, inner = f"{prefix}.delta", self.inner_width
        for name in "qkv":
            yield TensorSpec(f"{prefix}.{name}.weight", (inner, width), "matrix")
            taps = (inner, self.num_taps)
            yield TensorSpec(f"{prefix}.conv_{name}.weight", (taps[0] * taps[1],), "precise", taps)
        for name in ("forget", "gate"):
            if not self.rank:
                yield TensorSpec(f"{prefix}.{name}.weight", (inner, width), "matrix")
                continue
            yield TensorSpec(f"{prefix}.{name}_a.weight", (self.padded_rank, width), "matrix")
            yield TensorSpec(f"{prefix}.{name}_b.weight", (inner, self.padded_rank), "matrix")
        # Small, and what it says is raised to a power: it stays as precise as norms.
        yield TensorSpec(f"{prefix}.beta.weight", (self.num_heads, width), "precise")
        yield TensorSpec(f"{prefix}.decay", (self.num_heads,), "precise")
        yield TensorSpec(f"{prefix}.dt_bias", (inner,), "precise")
        yield TensorSpec(f"{prefix}.norm.weight", (self.head_dim,), "precise")
        yield filled_rows(f"{prefix}.out.weight", width, inner)

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        return {"linear heads times their dimension": self.inner_width}

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """See MixerSpec."""
        return native.mixers.KimiDeltaNet.working_bytes(
            num_rows,
            width=width,
            num_heads=self.num_heads,
            key_dim=self.head_dim,
            value_dim=self.head_dim,
            forget_rank=self.padded_rank,
            gate_rank=self.padded_rank,
        )

    @property
    def record_width(self) -> int:
        """See RecurrentSpec."""
        return 4 * self.inner_width + self.num_heads

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """See RecurrentSpec."""
        return {
            "state": (self.num_heads, self.head_dim, self.head_dim),
            "tail": (self.num_taps - 1, 3 * self.inner_width),
        }

    def build(self, parts: MixerParts) -> TokenMixer:
        """See MixerSpec."""
        return KimiDelta(parts)


class KimiDelta(RecurrentMixer):
    """See TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: KimiDeltaSpec = parts.spec
        assert not parts.has_post_norm, "no family has a norm after its delta net"
        weights, prefix = parts.weights, f"layers.{parts.layer}.delta"
        taps = [
            weights.vector(f"{prefix}.conv_{name}.weight").reshape(spec.inner_width, spec.num_taps)
            for name in "qkv"
        ]

        def matrix(name: str) -> Matrix:
            return weights.matrix(f"{prefix}.{name}.weight")

        def two(name: str) -> tuple[Matrix | None, Matrix]:
            return (matrix(f"{name}_a"), matrix(f"{name}_b")) if spec.rank else (None, matrix(name))

        compiled = native.mixers.KimiDeltaNet(
            parts.norm,
            parts.eps,
            matrix("q"),
            matrix("k"),
            matrix("v"),
            two("forget"),
            two("gate"),
            matrix("beta"),
            weights.vector(f"{prefix}.decay"),
            weights.vector(f"{prefix}.dt_bias"),
            np.ascontiguousarray(np.concatenate(taps).T),
            weights.vector(f"{prefix}.norm.weight"),
            matrix("out"),
            num_heads=spec.num_heads,
            key_dim=spec.head_dim,
            value_dim=spec.head_dim,
            lowest_log=spec.lowest_log,
            branch_scale=parts.branch_scale,
            activation=spec.activation,
        )
        super().__init__(parts.place, compiled)
