"""The state of a mixer that cannot go back: arrays of fixed size, copies of them to return to, and rows that
were run but may yet be taken back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.layer_state import MAX_TENTATIVE_ROWS
from edgemoe.native import FloatArray

Shapes = Mapping[str, tuple[int, ...]]
# Moves arrays on by some of the rows of a record: (record, rows in it, rows to take, state, tail).
Replay = Callable[[FloatArray, int, int, "FloatArray | None", FloatArray], None]

# Copies that a text keeps: of its prompt's end, where the next turn of a chat goes on, and of a place before.
MAX_COPIES = 2


@dataclass(frozen=True, slots=True)
class _Recorded:
    """Rows that the arrays do not have yet, of which the first ``num_taken`` belong to the text."""

    record: FloatArray
    num_rows: int
    num_taken: int
    replay: Replay


class RecurrentState:
    """Named float32 arrays, zeros before the first token; see LayerState."""

    def __init__(self, shapes: Shapes, record_width: int) -> None:
        """``record_width``: floats that a recorded row takes."""
        self.arrays: dict[str, FloatArray] = {name: np.zeros(s, np.float32) for name, s in shapes.items()}
        self._record_width = record_width
        self._recorded: _Recorded | None = None
        self._length = 0
        self._copies: OrderedDict[int, dict[str, FloatArray]] = OrderedDict()  # by length

    @staticmethod
    def size_bytes(shapes: Shapes, record_width: int) -> int:
        """What such a state takes, copies and recorded rows included."""
        arrays = sum(4 * int(np.prod(shape)) for shape in shapes.values())
        return (1 + MAX_COPIES) * arrays + 4 * record_width * MAX_TENTATIVE_ROWS

    @property
    def num_bytes(self) -> int:
        """See LayerState."""
        return self.size_bytes({name: a.shape for name, a in self.arrays.items()}, self._record_width)

    def advance(self, position: int, num_rows: int, replay: Replay | None = None) -> FloatArray | None:
        """Rows from ``position`` on are about to be taken in.

        With ``replay`` they may be taken back: the arrays are to stay as they are, and what ``replay`` needs
        is to be written to the record that is returned.
        """
        self.settle()
        assert position == self._length, "a state that moved on without its text"
        self._length = position + num_rows
        if replay is None:
            return None
        record = np.empty(num_rows * self._record_width, np.float32)
        self._recorded = _Recorded(record, num_rows, num_rows, replay)
        return record

    def settle(self) -> None:
        """Let the arrays have all rows of the text."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None:
            state, tail = self.arrays.get("state"), self.arrays["tail"]
            recorded.replay(recorded.record, recorded.num_rows, recorded.num_taken, state, tail)

    def keep(self) -> None:
        """Copy what is here, so that ``rewind`` can come back to it; the oldest copies make room."""
        self.settle()
        self._copies[self._length] = {name: array.copy() for name, array in self.arrays.items()}
        self._copies.move_to_end(self._length)
        while len(self._copies) > MAX_COPIES:
            self._copies.popitem(last=False)

    def reachable(self, length: int) -> int:
        """See LayerState: among the recorded rows, or where a copy was made, or the beginning."""
        if self._settled_length <= length <= self._length:
            return length
        return max((kept for kept in self._copies if kept <= length), default=0)

    def rewind(self, length: int) -> None:
        """See LayerState."""
        for kept in [kept for kept in self._copies if kept > length]:
            del self._copies[kept]
        recorded, settled = self._recorded, self._settled_length
        if recorded is None or length <= settled:
            self._recorded = None
            if length != settled:
                self._become(self._copies.get(length))
        else:
            self._recorded = replace(recorded, num_taken=length - settled)
        self._length = length

    def copy_from(self, other: RecurrentState, length: int) -> None:
        """See LayerState."""
        self._copies.clear()
        self._recorded = None
        settled = other._settled_length
        if settled <= length <= other._length:
            self._become(other.arrays)
            if length > settled and other._recorded is not None:
                self._recorded = replace(
                    other._recorded, record=other._recorded.record.copy(), num_taken=length - settled
                )
        else:
            self._become(other._copies.get(length))
        self._length = length
        if length:
            self.keep()

    def resume(self, length: int) -> None:
        """See StoredState."""
        self._length = length

    def pieces(self, length: int) -> list[NDArray[Any]]:
        """See StoredState: it goes on from where it is, and from nowhere else."""
        assert length == self._length, "a state that moved on without its text"
        self.settle()
        return list(self.arrays.values())

    def trim(self, num_tokens: int) -> None:
        """See LayerState: it takes the same for every text."""

    @property
    def _settled_length(self) -> int:
        """Tokens that the arrays have."""
        return self._length - (0 if self._recorded is None else self._recorded.num_taken)

    def _become(self, arrays: Mapping[str, FloatArray] | None) -> None:
        """Take over a copy; None is the state before the first token."""
        for name, array in self.arrays.items():
            array[...] = 0 if arrays is None else arrays[name]
