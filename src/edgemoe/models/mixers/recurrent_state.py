"""The state of a mixer that cannot go back: arrays of fixed size, and copies of them to return to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.native import FloatArray

Shapes = Mapping[str, tuple[int, ...]]

# Copies that a text keeps: of its prompt's end, where the next turn of a chat goes on, and of a place before.
MAX_COPIES = 2


class RecurrentState:
    """Named float32 arrays, zeros before the first token; see LayerState."""

    def __init__(self, shapes: Shapes) -> None:
        self.arrays: dict[str, FloatArray] = {name: np.zeros(s, np.float32) for name, s in shapes.items()}
        self._length = 0
        self._copies: OrderedDict[int, dict[str, FloatArray]] = OrderedDict()  # by length

    @staticmethod
    def size_bytes(shapes: Shapes) -> int:
        """What such a state takes, copies included."""
        return (1 + MAX_COPIES) * sum(4 * int(np.prod(shape)) for shape in shapes.values())

    @property
    def num_bytes(self) -> int:
        """See LayerState."""
        return (1 + MAX_COPIES) * sum(array.nbytes for array in self.arrays.values())

    def advance(self, position: int, num_rows: int) -> None:
        """Rows from ``position`` on are about to be taken in."""
        assert position == self._length, "a state that moved on without its text"
        self._length = position + num_rows

    def keep(self) -> None:
        """Copy what is here, so that ``rewind`` can come back to it; the oldest copies make room."""
        self._copies[self._length] = {name: array.copy() for name, array in self.arrays.items()}
        self._copies.move_to_end(self._length)
        while len(self._copies) > MAX_COPIES:
            self._copies.popitem(last=False)

    def reachable(self, length: int) -> int:
        """See LayerState: where it is, or where a copy was made, or the beginning."""
        if length == self._length:
            return length
        return max((kept for kept in self._copies if kept <= length), default=0)

    def rewind(self, length: int) -> None:
        """See LayerState."""
        for kept in [kept for kept in self._copies if kept > length]:
            del self._copies[kept]
        if length != self._length:
            self._become(self._copies.get(length))
            self._length = length

    def copy_from(self, other: RecurrentState, length: int) -> None:
        """See LayerState."""
        self._copies.clear()
        self._become(other.arrays if length == other._length else other._copies.get(length))
        self._length = length
        if length:
            self.keep()

    def resume(self, length: int) -> None:
        """See StoredState."""
        self._length = length

    def pieces(self, length: int) -> list[NDArray[Any]]:
        """See StoredState: it goes on from where it is, and from nowhere else."""
        assert length == self._length, "a state that moved on without its text"
        return list(self.arrays.values())

    def trim(self, num_tokens: int) -> None:
        """See LayerState: it takes the same for every text."""

    def _become(self, arrays: Mapping[str, FloatArray] | None) -> None:
        """Take over a copy; None is the state before the first token."""
        for name, array in self.arrays.items():
            array[...] = 0 if arrays is None else arrays[name]
