"""A bounded copy on a local disk of those experts of a remote store that are used most.

Its files mirror the store's expert files: a record lies at the same offset, and where none is kept the file
has a hole, which takes no room. So it is read as a local store is, and when everything is in it, as fast.
What leaves is punched out again. See tier_index.py for who leaves, and why nothing of this needs to be
trusted: every record that comes from here is compared with the checksum of the manifest.

Records are written by a thread of their own, from bytes that an answer has no need of any more; while it
has enough to do, others are not kept, and will be when they are read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemoe.errors import StoreError
from edgemoe.native import ByteArray, FileReader, aligned_empty, punch_hole
from edgemoe.store.expert_reader import Device, open_reader
from edgemoe.store.format import checksum
from edgemoe.store.library import HOME
from edgemoe.store.remote.tier_index import TierIndex
from edgemoe.system import open_uncached

MAX_DEPTH = 8  # reads at a time; a local disk likes no more
NUM_WAITING = 4  # records that wait to be written, at most; their bytes are counted in the budget
_INDEX_FILE = "index"
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """A range of an expert file and the checksum of what belongs there."""

    file: int
    offset: int
    num_bytes: int
    checksum: str

    def is_sound(self, data: ByteArray) -> bool:
        """Whether these are its bytes."""
        return checksum(data) == self.checksum


class Tier:
    """See the module. Thread-safe; several processes may use one folder."""

    def __init__(
        self,
        folder: Path,
        file_sizes: Mapping[str, int],
        records: Sequence[Record],
        capacity_bytes: int,
    ) -> None:
        """``file_sizes`` by name, in the order of the records' file numbers.

        Raises:
            StoreError: the folder cannot be written, or its file system has no files with holes.
        """
        self.records = records
        self._capacity_bytes = capacity_bytes
        self._numbers = {(record.file, record.offset): i for i, record in enumerate(records)}
        self._waiting: queue.Queue[tuple[int, ByteArray] | None] = queue.Queue(NUM_WAITING)
        self._is_refused = False  # the disk is full or failed: nothing more is kept
        self._paths = [folder / name for name in file_sizes]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptors = [_open_sparse(folder / name, size) for name, size in file_sizes.items()]
            self._index = TierIndex(folder / _INDEX_FILE, [record.num_bytes for record in records])
            self._tidy()
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise StoreError(
                    f"{folder}: its file system has no files with holes; put the cache elsewhere by"
                    f" {HOME}, or give --tier 0"
                ) from error
            raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
        self._thread = threading.Thread(target=self._work, name="edgemoe-tier", daemon=True)
        self._thread.start()

    @property
    def table(self) -> ByteArray:
        """What the index says, in memory that is shared; see native.TieredReader."""
        return self._index.table

    @property
    def held_bytes(self) -> int:
        """Room that its records take."""
        return self._index.held_bytes

    def open_reader(self, kind: str = "auto", device: Device | None = None) -> FileReader:
        """A reader of its files, of which nothing may be believed; see ``open_reader``."""
        return open_reader(self._paths, kind, MAX_DEPTH, device)

    def find(self, file: int, offset: int, num_bytes: int) -> Record | None:
        """The record at a place, if it is believed to be here."""
        number = self._numbers.get((file, offset))
        if number is None or not self._index.is_whole(number):
            return None
        record = self.records[number]
        return record if record.num_bytes == num_bytes else None

    def use(self, number: int) -> None:
        """A record was read from here."""
        self._index.use(number)

    def forget(self, number: int) -> None:
        """A record is not what it should be."""
        with self._index.locked():
            if self._index.is_whole(number):
                self._remove(number)

    def offer(self, file: int, offset: int, data: ByteArray) -> None:
        """A record that came over the network, to be kept if there is room and time; never blocks."""
        number = self._numbers.get((file, offset))
        if number is None or self._is_refused or self.records[number].num_bytes > self._capacity_bytes:
            return
        if not self._index.is_whole(number):
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait((number, data))

    def flush(self) -> None:
        """Wait until everything that was offered so far is written or refused."""
        self._waiting.join()

    def close(self) -> None:
        """Write what waits, then close the files; later calls do nothing."""
        if self._descriptors:
            self._waiting.put(None)
            self._thread.join()
            self._index.close()
            for descriptor in self._descriptors:
                os.close(descriptor)
            self._descriptors = []

    def _tidy(self) -> None:
        """Give back what a crash left, and what a smaller tier has no room for."""
        with self._index.locked():
            allocated = sum(os.fstat(descriptor).st_blocks * 512 for descriptor in self._descriptors)
            half_done = [n for n in self._index.not_whole() if self._index.is_taken(n)]
            # More than is accounted for: the index was lost, or is older than the files.
            is_astray = allocated > self._index.held_bytes + _BLOCK * (len(self.records) + 1)
            for number in self._index.not_whole() if is_astray else half_done:
                self._remove(number)
            self._make_room(0)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            number, data = waiting
            try:
                if self.records[number].is_sound(data):
                    self._keep(number, data)
            except OSError:
                self._is_refused = True
            finally:
                self._waiting.task_done()
            del waiting, data
        self._waiting.task_done()

    def _keep(self, number: int, data: ByteArray) -> None:
        record = self.records[number]
        descriptor = self._descriptors[record.file]
        with self._index.locked():
            # Another process may have it, or be writing it.
            if not self._index.is_absent(number) or not self._make_room(record.num_bytes):
                return
            self._index.take(number)
        is_written = False
        try:
            _write(descriptor, record.offset, data)
            is_written = True
        finally:
            with self._index.locked():
                # Unless a process that was opened meanwhile took it for what a crash had left.
                if is_written and self._index.is_taken(number):
                    self._index.set_whole(number)
                else:
                    self._remove(number)

    def _make_room(self, num_bytes: int) -> bool:
        """Let records leave until so many bytes fit; under the index's lock."""
        excess = self._index.held_bytes + num_bytes - self._capacity_bytes
        if excess <= 0:
            return True
        victims = self._index.victims(excess)
        for number in victims or ():
            self._remove(number)
        return victims is not None

    def _remove(self, number: int) -> None:
        record = self.records[number]
        self._index.leaves(number)
        punch_hole(self._descriptors[record.file], record.offset, record.num_bytes)


def _open_sparse(path: Path, num_bytes: int) -> int:
    """A file of this size for direct writes, of which nothing need be there."""
    num_bytes = -(-num_bytes // _BLOCK) * _BLOCK  # so that a direct read of its end is of whole blocks
    descriptor = open_uncached(path, os.O_RDWR | os.O_CREAT)
    if os.fstat(descriptor).st_size != num_bytes:
        os.ftruncate(descriptor, num_bytes)
    punch_hole(descriptor, 0, _BLOCK)  # the file's header lies there, which is not kept
    return descriptor


def _write(descriptor: int, offset: int, data: ByteArray) -> None:
    """Past the page cache where the file system allows it."""
    aligned = aligned_empty(len(data))
    aligned[:] = data
    done = 0
    while done < len(aligned):
        done += os.pwrite(descriptor, aligned[done:].data, offset + done)
