"""Gated short convolution: spec and mixer. Letters as in native/mixers.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgemoe import native
from edgemoe.models.mixers.mixer import MixerParts
from edgemoe.models.mixers.recurrent_state import RecurrentState
from edgemoe.models.segments import Segment
from edgemoe.models.spec import TensorSpec
from edgemoe.models.state import LayerState, StateSize
from edgemoe.native import FloatArray


@dataclass(frozen=True)
class ShortConvSpec:
    """See MixerSpec; the convolution is over the model's ``width``."""

    width: int
    num_taps: int
    has_bias: bool = False

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """See MixerSpec."""
        prefix = f"{prefix}.conv"
        yield TensorSpec(f"{prefix}.in.weight", (3 * width, width), "matrix")
        taps = (width, self.num_taps)
        yield TensorSpec(f"{prefix}.conv.weight", (taps[0] * taps[1],), "precise", taps)
        yield TensorSpec(f"{prefix}.out.weight", (width, width), "matrix")
        if self.has_bias:
            for name, length in (("in", 3 * width), ("conv", width), ("out", width)):
                yield TensorSpec(f"{prefix}.{name}.bias", (length,), "precise")

    def row_lengths(self) -> dict[str, int]:
        """See MixerSpec."""
        return {}

    def new_state(self, size: StateSize) -> LayerState:
        """See MixerSpec."""
        return RecurrentState(self._shapes())

    def state_num_bytes(self, size: StateSize) -> int:
        """See MixerSpec."""
        return RecurrentState.size_bytes(self._shapes())

    def working_floats(self, width: int) -> int:
        """See MixerSpec: the normed rows, what the matrix makes of them, gated and mixed values."""
        return 6 * width

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"tail": (self.num_taps - 1, self.width)}


class ShortConv:
    """See TokenMixer."""

    def __init__(self, parts: MixerParts) -> None:
        spec: ShortConvSpec = parts.spec
        assert not parts.has_post_norm, "no family has a norm after its short convolution"
        weights, prefix = parts.weights, f"layers.{parts.layer}.conv"
        taps = weights.vector(f"{prefix}.conv.weight").reshape(spec.width, spec.num_taps)
        self._place = parts.place
        self._conv = native.ShortConv(
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

    def add_to(self, x: FloatArray, segments: Sequence[Segment]) -> None:
        """See TokenMixer."""
        for segment in segments:
            self._state(segment).advance(segment.position, segment.num_rows)
        self._conv.run(x, [self._described(segment) for segment in segments], commits=True)

    def rehearse(self, x: FloatArray, segment: Segment) -> None:
        """See TokenMixer."""
        self._conv.run(x, [self._described(segment)], commits=False)

    def _state(self, segment: Segment) -> RecurrentState:
        state = segment.state.layers[self._place]
        assert isinstance(state, RecurrentState), "a text's state was made for another model"
        return state

    def _described(self, segment: Segment) -> tuple[int, int, FloatArray]:
        return segment.first, segment.num_rows, self._state(segment).arrays["tail"]
