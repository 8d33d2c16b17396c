"""What mixers with a state of fixed size share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edgemoe.models.layer_state import LayerState, StateSize
from edgemoe.models.mixers.recurrent_state import RecurrentState
from edgemoe.models.segments import Segment
from edgemoe.native import FloatArray

# First row, number of rows, state and tail, as ``native.mixers`` takes a segment.
_Described = tuple[int, int, "FloatArray | None", FloatArray]


class CompiledMixer(Protocol):
    """One of ``native.mixers``."""

    def run(
        self,
        x: FloatArray,
        segments: Sequence[_Described],
        commits: bool,
        records: Sequence[FloatArray | None] = (),
    ) -> None:
        """See ``native.mixers``."""
        ...

    def replay(
        self,
        record: FloatArray,
        num_recorded: int,
        num_rows: int,
        state: FloatArray | None,
        tail: FloatArray,
    ) -> None:
        """See ``native.mixers``."""
        ...


class RecurrentSpec:
    """The states of such a mixer; see MixerSpec."""

    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the arrays of a text's state: of ``tail``, and of ``state`` where the mixer has one."""
        raise NotImplementedError

    @property
    def record_width(self) -> int:
        """Floats of a row that may be taken back: what the matrices make of it."""
        raise NotImplementedError

    def new_state(self, size: StateSize) -> LayerState:
        """See MixerSpec."""
        return RecurrentState(self.state_shapes(), self.record_width)

    def state_num_bytes(self, size: StateSize) -> int:
        """See MixerSpec."""
        return RecurrentState.size_bytes(self.state_shapes(), self.record_width)


class RecurrentMixer:
    """See TokenMixer."""

    def __init__(self, place: int, compiled: CompiledMixer) -> None:
        """``place``: number in ``SequenceState.layers``."""
        self._place = place
        self._compiled = compiled

    def add_to(self, x: FloatArray, segments: Sequence[Segment]) -> None:
        """See TokenMixer."""
        records = [self._advance(segment) for segment in segments]
        self._compiled.run(x, [self._described(segment) for segment in segments], True, records)

    def rehearse(self, x: FloatArray, segment: Segment) -> None:
        """See TokenMixer."""
        self._state(segment).settle()
        self._compiled.run(x, [self._described(segment)], False)

    def _advance(self, segment: Segment) -> FloatArray | None:
        replay = self._compiled.replay if segment.is_tentative else None
        return self._state(segment).advance(segment.position, segment.num_rows, replay)

    def _state(self, segment: Segment) -> RecurrentState:
        state = segment.state.layers[self._place]
        assert isinstance(state, RecurrentState), "a text's state was made for another model"
        return state

    def _described(self, segment: Segment) -> _Described:
        arrays = self._state(segment).arrays
        return segment.first, segment.num_rows, arrays.get("state"), arrays["tail"]
