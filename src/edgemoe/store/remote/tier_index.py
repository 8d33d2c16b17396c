"""Which records the local tier holds and how much each is worth: a small file that processes share.

It is a hint and never trusted: whether a record is whole, its checksum says when it is read. So a crash at
any moment, or two processes at once, cost at worst a read over the network. What must be exact is the number
of bytes held; room is taken and given back under a lock of the file.

Worth is by use with ageing (LFU with dynamic ageing: Arlitt and others, Performance Evaluation Review 27(4),
2000): a record is worth its number of uses plus the age at its last one, and the age is what the last record
that left was worth.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgemoe.native import ByteArray
from edgemoe.store.durable import take_lock
from edgemoe.system import reserve_room

_ABSENT, _TAKEN, _WHOLE = 0, 1, 2
# As native/io/tiered_reader.h has it, which reads and counts uses.
_ENTRY = np.dtype([("state", "<u4"), ("uses", "<u4"), ("worth", "<f8")])


class TierIndex:
    """One entry a record. Thread-safe; several processes may have it open."""

    def __init__(self, path: Path, sizes: Sequence[int]) -> None:
        """``sizes`` are the records' bytes, by number.

        Raises:
            OSError: the file cannot be made, or the disk is full.
        """
        self._sizes, self._path = np.array(sizes, np.int64), path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._lock = threading.RLock()
        self._depth, self._held = 0, self._descriptor
        with self.locked():
            num_bytes = _ENTRY.itemsize * (1 + len(sizes))  # the first is for the age
            if os.fstat(self._descriptor).st_size != num_bytes:
                os.ftruncate(self._descriptor, 0)
            # All of it is there: writing to the map of a full disk would kill the process.
            reserve_room(self._descriptor, num_bytes)
        mapped = np.memmap(path, _ENTRY, "r+", shape=(1 + len(sizes),))
        self.table: ByteArray = mapped.view(np.ndarray).view(np.uint8)  # the whole file
        self._age, self._table = mapped[:1], mapped[1:]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else, in this process or another, takes room or gives it back meanwhile."""
        with self._lock:
            if self._depth == 0:
                self._held = take_lock(self._descriptor, self._path, waits=True)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._unlock()

    def _unlock(self) -> None:
        if self._held == self._descriptor:
            fcntl.flock(self._held, fcntl.LOCK_UN)
        else:
            os.close(self._held)

    @property
    def held_bytes(self) -> int:
        """Room that records take, those that are being written included."""
        return int(self._sizes[self._table["state"] != _ABSENT].sum())

    def is_whole(self, record: int) -> bool:
        """Whether a record is believed to be there."""
        return bool(self._table["state"][record] == _WHOLE)

    def is_taken(self, record: int) -> bool:
        """Whether room was taken for a record that is not whole."""
        return bool(self._table["state"][record] not in (_ABSENT, _WHOLE))

    def not_whole(self) -> list[int]:
        """Records that are not there."""
        return [int(record) for record in np.flatnonzero(self._table["state"] != _WHOLE)]

    def is_absent(self, record: int) -> bool:
        """Whether a record takes no room."""
        return bool(self._table["state"][record] == _ABSENT)

    def take(self, record: int) -> None:
        """Take room for a record that is about to be written."""
        self._table["state"][record] = _TAKEN
        self._table["uses"][record] = 0
        self.use(record)

    def set_whole(self, record: int) -> None:
        """A record that room was taken for is written."""
        self._table["state"][record] = _WHOLE

    def use(self, record: int) -> None:
        """A record was wanted. Not under the lock: a use that gets lost between processes does no harm."""
        self._table["uses"][record] += 1
        self._table["worth"][record] = self._table["uses"][record] + self._age["worth"][0]

    def victims(self, num_bytes: int) -> list[int] | None:
        """The whole records worth least, of so many bytes or more; None where there are not so many."""
        held = np.flatnonzero(self._table["state"] == _WHOLE)
        held = held[np.argsort(self._table["worth"][held], kind="stable")]
        count = int(np.searchsorted(np.cumsum(self._sizes[held]), num_bytes)) + 1 if num_bytes > 0 else 0
        return None if count > len(held) else [int(record) for record in held[:count]]

    def leaves(self, record: int) -> None:
        """A record gives its room back."""
        self._age["worth"][0] = max(self._age["worth"][0], self._table["worth"][record])
        self._table["state"][record] = _ABSENT

    def close(self) -> None:
        """Close the file; later calls do nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
