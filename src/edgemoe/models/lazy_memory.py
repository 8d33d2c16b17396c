"""Memory of a text's state that counts page by page as the text grows, and goes back page by page.

Every text has the addresses of a whole context, which cost nothing; what it takes is the pages of the tokens
it has had. So keys and values stay in one piece for the kernels, and texts of any length share one budget.
``LazyMemory`` belongs to one text; of ``PagedMemory`` texts that begin alike share the pages they fill.

Letters: G key/value heads, S slots, C head dimension.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe.native import TextPages, avoid_huge_pages, give_back

Shape = tuple[int, int, int]  # (G, S, C)


class SlotMemory(Protocol):
    """Arrays (G, S, C) of one kind of number."""

    arrays: list[NDArray[Any]]

    def begin_as(self, other: Any, num_slots: int) -> None:
        """Have what another text's memory of the same arrays has in its first slots."""
        ...

    def trim(self, num_slots: int) -> None:
        """Give the memory of all slots from ``num_slots`` on back to the system; they hold zeros then."""
        ...


def slot_memory(shapes: Sequence[Shape], dtype: np.dtype[Any], pages: TextPages | None) -> SlotMemory:
    """Memory of arrays, in a text's pages where it has some."""
    return LazyMemory(shapes, dtype) if pages is None else PagedMemory(shapes, dtype, pages)


class LazyMemory:
    """Arrays (G, S, C) of one kind of number in one piece of memory that belongs to nobody else."""

    def __init__(self, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        sizes = [int(np.prod(shape)) * dtype.itemsize for shape in shapes]
        self._map = mmap.mmap(-1, max(1, sum(sizes)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes = np.frombuffer(self._map, np.uint8)
        # With huge pages the first token would take two MiB of every array.
        avoid_huge_pages(self._bytes)
        self._starts = np.cumsum([0, *sizes])[:-1].tolist()
        self.arrays: list[NDArray[Any]] = [
            np.frombuffer(self._map, dtype, int(np.prod(shape)), start).reshape(shape)
            for shape, start in zip(shapes, self._starts, strict=True)
        ]

    def begin_as(self, other: LazyMemory, num_slots: int) -> None:
        """See SlotMemory: a copy."""
        for mine, theirs in zip(self.arrays, other.arrays, strict=True):
            mine[:, :num_slots] = theirs[:, :num_slots]

    def trim(self, num_slots: int) -> None:
        """See SlotMemory."""
        for array, start in zip(self.arrays, self._starts, strict=True):
            num_heads, head_slots, dim = array.shape
            slot_bytes = dim * self._dtype.itemsize
            for head in range(num_heads):
                first = start + (head * head_slots + num_slots) * slot_bytes
                end = start + (head + 1) * head_slots * slot_bytes
                # Whole pages only: the first and the last may hold what is in use.
                first = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
                end = end // mmap.PAGESIZE * mmap.PAGESIZE
                if first < end:
                    give_back(self._bytes[first:end])

    @staticmethod
    def num_bytes(shapes: Sequence[Shape], dtype: np.dtype[Any], num_slots: int) -> int:
        """Most that arrays of these shapes take when their first ``num_slots`` slots are in use."""
        total = 0
        for num_heads, head_slots, dim in shapes:
            used = num_slots * dim * dtype.itemsize
            # A head's slots begin anywhere in a page.
            pages = (used + 2 * mmap.PAGESIZE - 2) // mmap.PAGESIZE if num_slots else 0
            total += num_heads * min(pages * mmap.PAGESIZE, head_slots * dim * dtype.itemsize)
        return total


class PagedMemory:
    """Arrays (G, S, C) in the pages of a text, with as many further slots as fill a page.

    All arrays of a text begin as another's, or go back, at once: by the text's ``TextPages``.
    """

    def __init__(self, shapes: Sequence[Shape], dtype: np.dtype[Any], pages: TextPages) -> None:
        """Shapes have the same S."""
        widths = [dim * dtype.itemsize for _, _, dim in shapes]
        multiple = max(TextPages.slots_of_pages(width) for width in widths)  # powers of two
        self.arrays: list[NDArray[Any]] = []
        for (num_heads, num_slots, dim), width in zip(shapes, widths, strict=True):
            room = -(-max(1, num_slots) // multiple) * multiple
            self.arrays.append(pages.add(num_heads, room, width).view(dtype).reshape(num_heads, room, dim))

    def begin_as(self, other: PagedMemory, num_slots: int) -> None:
        """See SlotMemory: with all of the text."""

    def trim(self, num_slots: int) -> None:
        """See SlotMemory: with all of the text."""

    @staticmethod
    def num_bytes(shapes: Sequence[Shape], dtype: np.dtype[Any], num_slots: int) -> int:
        """As ``LazyMemory.num_bytes``: a head's slots begin with a page."""
        total = 0
        for num_heads, head_slots, dim in shapes:
            used, most = (-(-n * dim * dtype.itemsize // mmap.PAGESIZE) for n in (num_slots, head_slots))
            # Where few are in use there is a page of the system's own, for their addresses.
            total += num_heads * min(used + 1, most) * mmap.PAGESIZE if num_slots else 0
        return total
