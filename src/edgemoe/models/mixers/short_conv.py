"""Gated short convolution: spec and mixer. Letters as in native.mixers.ShortConv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgemoe import native
from edgemoe.models.mixer_spec import TensorSpec
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.mixers.recurrent_mixer import RecurrentMixer, RecurrentSpec


@dataclass(frozen=True)
class ShortConvSpec(RecurrentSpec):
    """See MixerSpec; the convolution is over the model's ``width``, as is each of the parts that go in."""

    width: int
    num_taps: int
    has_bias: bool = False

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        prefix = f"{prefix}.conv"
        yield TensorSpec(f"{prefix}.in.weight", (3 * self.width, width), "matrix")
        taps = (width, self.num_taps)
        yield TensorSpec(f"{prefix}.conv.weight", (taps[0] * taps[1],), "precise", taps)
        yield TensorSpec(f"{prefix}.out.weight", (width, width), "matrix")
        if self.has_bias:
            for name, length in (("in", 3 * self.width), ("conv", width), ("out", width)):
                yield TensorSpec(f"{prefix}.{name}.bias", (length,), "precise")

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        return {}

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """See MixerSpec."""
        return native.mixers.ShortConv.working_bytes(num_rows, width=width)

    @property
    def record_width(self) -> int:
        """See RecurrentSpec."""
        return self.width

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """See RecurrentSpec."""
        return {"tail": (self.num_taps - 1, self.width)}

    def build(self, parts: MixerParts) -> TokenMixer:
        """See MixerSpec."""
        return ShortConv(parts)


class ShortConv(RecurrentMixer):
    """See TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: ShortConvSpec = parts.spec
        assert not parts.has_post_norm, "no family has a norm after its short convolution"
        weights, prefix = parts.weights, f"layers.{parts.layer}.conv"
        taps = weights.vector(f"{prefix}.conv.weight").reshape(spec.width, spec.num_taps)
        compiled = native.mixers.ShortConv(
            parts.norm,
            parts.eps,
            weights.matrix(f"{prefix}.in.weight"),
            weights.optional_vector(f"{prefix}.in.bias"),
            np.ascontiguousarray(taps.T),
            weights.optional_vector(f"{prefix}.conv.bias"),
            weights.matrix(f"{prefix}.out.weight"),
            weights.optional_vector(f"{prefix}.out.bias"),
            branch_scale=parts.branch_scale,
        )
        super().__init__(parts.place, compiled)
