"""The memory of the expert cache: slots of several sizes within a fixed number of bytes.

Records of mixed bit widths differ in size. Each size has address space of its own for as many slots as
could ever be needed, so a slot can always be had while bytes are left: nothing fragments. Pages that a
size gives up go back to the system before another size takes as many, so the bytes in memory never
exceed the capacity. Products read slots through huge pages where these lie within a slot: with small ones
alone they reach 0.8 of their speed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgemoe.native import ByteArray

HUGE_PAGE = 2 << 20
MAP_NORESERVE = 0x4000  # of Linux; Python names it from 3.13 on


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one record; ``buffer`` is page-aligned and exactly of the record's size."""

    offset: int
    buffer: ByteArray


class _Region:
    """Slots of one size. ``is_alone``: no other size will ever want its pages."""

    def __init__(self, slot_num_bytes: int, num_slots: int, is_alone: bool) -> None:
        self.slot_num_bytes = slot_num_bytes
        # Slots that are given back apart must not share a huge page: each begins at one.
        self._is_apart = not is_alone and slot_num_bytes >= HUGE_PAGE
        self._stride = -(-slot_num_bytes // HUGE_PAGE) * HUGE_PAGE if self._is_apart else slot_num_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._memory = mmap.mmap(-1, self._stride * num_slots + HUGE_PAGE, flags=flags)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._first = -self._bytes.ctypes.data % HUGE_PAGE
        use_huge_pages = is_alone and slot_num_bytes * num_slots >= HUGE_PAGE
        self._memory.madvise(mmap.MADV_HUGEPAGE if use_huge_pages else mmap.MADV_NOHUGEPAGE)
        self._untouched = list(range(num_slots - 1, -1, -1))
        self._free: list[Slot] = []  # their pages are still in memory

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    def take(self) -> Slot:
        if self._free:
            return self._free.pop()
        offset = self._first + self._untouched.pop() * self._stride
        if self._is_apart:
            # What is left of the slot behind its last whole huge page keeps small ones.
            self._memory.madvise(mmap.MADV_HUGEPAGE, offset, self.slot_num_bytes // HUGE_PAGE * HUGE_PAGE)
        return Slot(offset, self._bytes[offset : offset + self.slot_num_bytes])

    def give(self, slot: Slot) -> None:
        self._free.append(slot)

    def shrink(self) -> None:
        """Return the pages of one free slot to the system."""
        slot = self._free.pop()
        self._memory.madvise(mmap.MADV_DONTNEED, slot.offset, self.slot_num_bytes)
        self._untouched.append((slot.offset - self._first) // self._stride)


class SlotArena:
    """Slots for records of the given sizes, multiples of 4096, within ``capacity_bytes`` in all."""

    def __init__(self, capacity_bytes: int, record_sizes: Iterable[int]) -> None:
        sizes = sorted(set(record_sizes))
        self._regions = {
            size: _Region(size, capacity_bytes // size, is_alone=len(sizes) == 1)
            for size in sizes
            if size <= capacity_bytes
        }
        self._capacity_bytes = capacity_bytes
        self._touched_bytes = 0

    @property
    def touched_bytes(self) -> int:
        """Bytes whose pages may be in memory: never more than the capacity."""
        return self._touched_bytes

    def take(self, num_bytes: int) -> Slot:
        """A slot of this size. The bytes of slots in use stay within the capacity: the caller's duty."""
        region = self._regions[num_bytes]
        if not region.has_free:
            while self._touched_bytes + num_bytes > self._capacity_bytes:
                other = next(r for r in self._regions.values() if r.has_free)
                other.shrink()
                self._touched_bytes -= other.slot_num_bytes
            self._touched_bytes += num_bytes
        return region.take()

    def give(self, slot: Slot) -> None:
        """Give a slot back."""
        self._regions[len(slot.buffer)].give(slot)
