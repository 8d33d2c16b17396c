"""What one layer keeps of a text: the protocol, and keys and values in slots.

Letters: G key/value heads, S slots, C head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.lazy_memory import LazyMemory, PagedMemory, slot_memory
from edgemoe.native import TextPages

KV_FORMATS: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
}
Keys = NDArray[Any]  # (G, S, C), or values
# Most tokens of a text that pass through a layer together; what a window's slots have beside the window.
MAX_SEGMENT_ROWS = 512
# Most rows of a text in a step that may be taken back.
MAX_TENTATIVE_ROWS = 16


@dataclass(frozen=True, slots=True)
class StateSize:
    """How large the states of a text are: room for ``num_slots`` tokens, keys and values in ``kv_format``."""

    num_slots: int
    kv_format: str = "f16"
    max_rows: int = MAX_SEGMENT_ROWS  # of one call
    num_used: int | None = None  # slots of a text that is no longer than this, if it is not
    pages: TextPages | None = None  # where what a layer keeps of all tokens lies, if texts share pages

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of keys and values."""
        return KV_FORMATS[self.kv_format]


class LayerState(Protocol):
    """What one layer keeps of a text. Used by one thread."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, used or not."""
        ...

    def reachable(self, length: int) -> int:
        """The longest beginning of the text, of at most ``length`` tokens, that ``rewind`` can go back to."""
        ...

    def rewind(self, length: int) -> None:
        """Forget the tokens from ``length`` on; it is ``reachable``."""
        ...

    def copy_from(self, other: Any, length: int) -> None:
        """Become what another text's state of this layer is once it is rewound to ``length``, which it can
        reach.
        """
        ...

    def trim(self, num_tokens: int) -> None:
        """Give back memory that a text of so many tokens, all this one has, does not need."""
        ...

    def keep(self) -> None:
        """Here a text may be taken back to: a state that cannot go back by itself makes a copy."""
        ...


@runtime_checkable
class StoredState(Protocol):
    """A LayerState that can be written to a file and read again."""

    def resume(self, length: int) -> None:
        """Of an empty state: be about to get what a text of so many tokens has here, see ``pieces``."""
        ...

    def pieces(self, length: int) -> list[NDArray[Any]]:
        """Views of all that a text of ``length`` tokens, which this one is, needs to go on."""
        ...


class Slots:
    """Keys and values (G, S, C) of all tokens, or with a window of the last ones.

    A window's slots are filled from the first to the last; then those that it still needs move to the front.
    So what is seen lies always in one piece, and is moved once in ``max_rows`` tokens.
    """

    def __init__(
        self, num_heads: int, head_dim: int, size: StateSize, window: int = 0, value_dim: int | None = None
    ) -> None:
        """``value_dim``: C of values, where it is another."""
        self._window = window
        self._room = num_slots(size, window)
        shapes = [(num_heads, self._room, dim) for dim in (head_dim, value_dim or head_dim)]
        self._memory = slot_memory(shapes, size.dtype, None if window else size.pages)
        self.keys, self.values = self._memory.arrays
        self._first = 0  # position of the first slot
        self._length = 0

    @property
    def num_bytes(self) -> int:
        """See LayerState."""
        return self.keys.nbytes + self.values.nbytes

    def place(self, position: int, num_rows: int) -> int:
        """The slot of a position that is written next, after making room for so many rows from there on."""
        slot, room = position - self._first, self._room
        if slot + num_rows > room:
            kept = self._window - 1
            assert self._window > 0, "more tokens than a state was made for"
            assert kept + num_rows <= room, "more rows of one call than a state was made for"
            for heads in (self.keys, self.values):
                for head in heads:  # one at a time: NumPy copies what overlaps
                    head[:kept] = head[slot - kept : slot]
            self._first, slot = position - kept, kept
        self._length = position + num_rows
        return slot

    def reachable(self, length: int) -> int:
        """See LayerState: any length, unless a window's slots no longer have what it would see there."""
        if self._first == 0 or length >= self._first + self._window - 1:
            return length
        return 0

    def rewind(self, length: int) -> None:
        """See LayerState."""
        if length == 0:
            self._first = 0
        self._length = length

    def copy_from(self, other: Slots, length: int) -> None:
        """See LayerState."""
        self._first = other._first if length else 0
        self._memory.begin_as(other._memory, length - self._first)
        self._length = length

    def trim(self, num_tokens: int) -> None:
        """See LayerState."""
        if self._first == 0:
            self._memory.trim(min(num_tokens, self._room))

    def keep(self) -> None:
        """See LayerState: keys and values of all tokens are there anyway."""

    def resume(self, length: int) -> None:
        """See StoredState."""
        self._first, self._length = self._first_needed(length), length

    def pieces(self, length: int) -> list[NDArray[Any]]:
        """See StoredState: keys and values of all tokens, or of those that a window still sees."""
        used = slice(self._first_needed(length) - self._first, length - self._first)
        return [self.keys[:, used], self.values[:, used]]

    def _first_needed(self, length: int) -> int:
        return max(0, length - (self._window - 1)) if self._window else 0

    @staticmethod
    def used_num_bytes(num_heads: int, dims: tuple[int, int], size: StateSize, window: int = 0) -> int:
        """What keys and values, of these dimensions, take of a text of ``size.num_used`` tokens."""
        slots = num_slots(size, window)
        used = slots if size.num_used is None else min(slots, size.num_used)
        kind = LazyMemory if window else PagedMemory
        return kind.num_bytes([(num_heads, slots, dim) for dim in dims], size.dtype, used)


def num_slots(size: StateSize, window: int) -> int:
    """Slots of a layer: of all tokens, or of a window and the rows of one call."""
    return size.num_slots if window == 0 else min(size.num_slots, window + size.max_rows)
