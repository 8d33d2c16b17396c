"""The memory of the expert cache: slots of several sizes within a fixed number of bytes.

Records of mixed bit widths differ in size. A slot has address space for the largest of them and may hold any,
so one can always be had while bytes are left: nothing fragments. It keeps the pages it has touched and takes
more when a larger record comes: pages that are new have to be cleared, which takes as long as reading them.
When it would be too many, pages that hold no record go back to the system first, so the bytes in memory never
exceed the capacity. Slots have huge pages as far as every record fills these, or nearly: with small ones
alone products reach 0.8 of their speed, and so does storage.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgemoe.native import ByteArray

HUGE_PAGE = 2 << 20
# A record that fills this much of its last huge page takes all of it.
NEARLY_FULL = 15 / 16
MAP_NORESERVE = 0x4000  # of Linux; Python names it from 3.13 on


@dataclass(eq=False, slots=True)
class _Frame:
    """Address space of one slot."""

    offset: int
    touched_bytes: int = 0  # pages from its start that may be in memory
    used_bytes: int = 0  # of these, what a record takes
    slots: dict[int, Slot] = field(default_factory=dict)  # by size: made once, used again and again

    @property
    def spare_bytes(self) -> int:
        return self.touched_bytes - self.used_bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one record; ``buffer`` is page-aligned and exactly of the record's size."""

    offset: int
    buffer: ByteArray
    frame: _Frame = field(repr=False)


class SlotArena:
    """Slots for records of the given sizes, multiples of 4096, within ``capacity_bytes`` in all."""

    def __init__(self, capacity_bytes: int, record_sizes: Sequence[int]) -> None:
        """``record_sizes`` of every record that there is."""
        sizes = sorted(size for size in set(record_sizes) if size <= capacity_bytes)
        smallest, largest = (sizes[0], sizes[-1]) if sizes else (1, 0)
        # Frames whose pages may go back apart must not share a huge page: each begins at one.
        self._huge_bytes = 0
        if len(sizes) > 1:
            holds_all = capacity_bytes >= sum(record_sizes)  # and would not, if records took more
            self._huge_bytes = _huge_bytes(smallest, capacity_bytes, 1.0 if holds_all else NEARLY_FULL)
        num_frames = capacity_bytes // self.slot_num_bytes(smallest) if sizes else 0
        stride = -(-largest // HUGE_PAGE) * HUGE_PAGE if self._huge_bytes else largest
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._memory = mmap.mmap(-1, stride * num_frames + HUGE_PAGE, flags=flags)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        first = -self._bytes.ctypes.data % HUGE_PAGE
        use_huge_pages = len(sizes) == 1 and largest * num_frames >= HUGE_PAGE
        self._memory.madvise(mmap.MADV_HUGEPAGE if use_huge_pages else mmap.MADV_NOHUGEPAGE)
        self._capacity_bytes = capacity_bytes
        self._touched_bytes = 0
        self._untouched = [_Frame(first + i * stride) for i in range(num_frames - 1, -1, -1)]
        self._free: set[_Frame] = set()  # without a record, with pages that are still in memory
        self._spare: set[_Frame] = set()  # with pages behind their record

    @property
    def touched_bytes(self) -> int:
        """Bytes whose pages may be in memory: never more than the capacity."""
        return self._touched_bytes

    def slot_num_bytes(self, num_bytes: int) -> int:
        """Bytes of memory that a record of this size takes."""
        return max(num_bytes, self._huge_bytes)

    def take(self, num_bytes: int) -> Slot:
        """A slot for a record of this size.

        The ``slot_num_bytes`` of slots in use stay within the capacity: the caller's duty.
        """
        needed_bytes = self.slot_num_bytes(num_bytes)
        frame = self._find(needed_bytes)
        growth = max(needed_bytes - frame.touched_bytes, 0)
        while self._touched_bytes + growth > self._capacity_bytes:
            self._trim(max(self._free or self._spare, key=lambda f: f.spare_bytes))
        self._touched_bytes += growth
        frame.touched_bytes += growth
        frame.used_bytes = needed_bytes
        if frame.spare_bytes:
            self._spare.add(frame)
        slot = frame.slots.get(num_bytes)
        if slot is None:
            buffer = self._bytes[frame.offset : frame.offset + num_bytes]
            slot = frame.slots[num_bytes] = Slot(frame.offset, buffer, frame)
        return slot

    def give(self, slot: Slot) -> None:
        """Give a slot back."""
        frame = slot.frame
        self._spare.discard(frame)
        frame.used_bytes = 0
        self._free.add(frame)

    def _find(self, num_bytes: int) -> _Frame:
        """The free frame that fits best: with as many pages as needed, or nearly."""
        if len(self._free) == 1:
            return self._free.pop()
        if self._free:
            frame = min(
                self._free, key=lambda f: (f.touched_bytes < num_bytes, abs(f.touched_bytes - num_bytes))
            )
            self._free.remove(frame)
            return frame
        frame = self._untouched.pop()
        if self._huge_bytes:
            self._memory.madvise(mmap.MADV_HUGEPAGE, frame.offset, self._huge_bytes)
        return frame

    def _trim(self, frame: _Frame) -> None:
        """Return the pages behind a frame's record to the system; all of them where it has none."""
        self._memory.madvise(mmap.MADV_DONTNEED, frame.offset + frame.used_bytes, frame.spare_bytes)
        self._touched_bytes -= frame.spare_bytes
        frame.touched_bytes = frame.used_bytes
        self._spare.discard(frame)
        if frame in self._free:
            self._free.remove(frame)
            self._untouched.append(frame)


def _huge_bytes(smallest: int, capacity_bytes: int, least_share: float) -> int:
    """Bytes of huge pages that the smallest record fills, the last one to this share at least."""
    num_whole, rest = divmod(smallest, HUGE_PAGE)
    huge_bytes = (num_whole + (rest >= least_share * HUGE_PAGE)) * HUGE_PAGE
    return huge_bytes if huge_bytes <= capacity_bytes else 0
