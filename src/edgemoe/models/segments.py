"""The rows of a step: some of one text, some of another. Letters: T rows, R rotated pairs."""

from __future__ import annotations

from collections.abc import Sequence

from edgemoe.models.rope import Rotation
from edgemoe.models.state import SequenceState
from edgemoe.native import FloatArray


class Segment:
    """Rows [first, first + num_rows) of a step: the next tokens of one text, from its state's length on."""

    def __init__(self, first: int, num_rows: int, state: SequenceState, is_tentative: bool = False) -> None:
        """``is_tentative``: the text may be taken back to any of these rows, until the next are run."""
        self.first = first
        self.num_rows = num_rows
        self.state = state
        self.is_tentative = is_tentative
        self._angles: dict[Rotation, tuple[FloatArray, FloatArray]] = {}

    @property
    def position(self) -> int:
        """The place of the first row in its text."""
        return self.state.length

    @property
    def rows(self) -> slice:
        """Where these rows lie among those of the step."""
        return slice(self.first, self.first + self.num_rows)

    def angles(self, rotation: Rotation | None) -> tuple[FloatArray, FloatArray] | None:
        """Cos and sin (num_rows, R) for these rows; made once for all layers that share a rotation."""
        if rotation is None:
            return None
        found = self._angles.get(rotation)
        if found is None:
            found = self._angles[rotation] = rotation(self.position, self.num_rows)
        return found


def one_text(state: SequenceState, num_rows: int) -> Sequence[Segment]:
    """A step of one text alone."""
    return (Segment(0, num_rows, state),)
