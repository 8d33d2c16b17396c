"""Reading ranges of files while others compute, around the page cache where possible."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

import edgemoe._native as _native
from edgemoe.native.matrix import ByteArray

DIRECT_ALIGNMENT: int = _native.DIRECT_ALIGNMENT
READ_METHODS = ("ring", "direct", "buffered")


def aligned_empty(num_bytes: int) -> ByteArray:
    """Uninitialised page-aligned memory, freed with the array; pages count once they are touched."""
    return _native.aligned_empty(num_bytes)


def read_memory(buffer: ByteArray) -> int:
    """Sum of the 64-bit words of a buffer, modulo 2^64, on all threads: as fast as memory gives.

    Raises:
        ValueError: its size is not a multiple of 8.
    """
    return _native.read_memory(buffer.view(np.uint64))


def punch_hole(descriptor: int, offset: int, num_bytes: int) -> None:
    """Give a range of a file back to its file system: it reads as zeros then, and the file keeps its size.

    Raises:
        OSError: with EOPNOTSUPP where the file system cannot.
    """
    _native.punch_hole(descriptor, offset, num_bytes)


class BlockSlice(NamedTuple):
    """Rows of GGUF blocks (N, M) that lie one behind the other from ``offset`` of a file on."""

    file: int
    offset: int
    format: str
    num_rows: int
    num_cols: int


_Compiled = TypeVar("_Compiled", _native.FileReader, _native.TieredReader)


class CompiledReader(Generic[_Compiled]):
    """Reads that compiled code serves. Thread-safe."""

    def __init__(self, reader: _Compiled) -> None:
        self._reader: _Compiled = reader
        # A destination must outlive its read even when the caller forgets it.
        self._destinations: dict[int, ByteArray] = {}

    @property
    def compiled(self) -> _Compiled:
        """The reader that compiled code may use as well."""
        return self._reader

    def submit(self, file: int, offset: int, out: ByteArray, priority: int = 0) -> int:
        """Queue a read of ``len(out)`` bytes; lower priority numbers go first. Returns a ticket.

        It starts with the next ``begin`` or wait at the latest.
        """
        ticket = self._reader.submit(file, offset, out, priority)
        self._destinations[ticket] = out
        return ticket

    def begin(self) -> None:
        """Start what is queued; what is beyond the depth follows by itself."""
        self._reader.begin()

    def wait(self, ticket: int) -> None:
        """Block until the read has ended; each ticket is waited for once.

        Raises:
            OSError: it failed; the text holds the offset, ``filename`` the path.
        """
        try:
            self._reader.wait(ticket)
        except OSError:
            self._destinations.pop(ticket, None)
            raise
        # Not in a `finally`: after Ctrl-C the read may still be writing to its destination.
        self._destinations.pop(ticket, None)

    def wait_some(self, tickets: Sequence[int], block: bool = True) -> list[int]:
        """Those of the tickets that have ended, well or not; while there is none, block or return none."""
        return self._reader.wait_some(tickets, block)

    def cancel(self, ticket: int) -> bool:
        """Drop a read that has not started. True: its destination is free; wait() returns at once."""
        return self._reader.cancel(ticket)


class FileReader(CompiledReader[_native.FileReader]):
    """Reads ranges of a fixed list of files, up to ``max_depth`` at a time. Thread-safe.

    ``method`` is one of READ_METHODS: "ring" and "direct" bypass the page cache, by io_uring and on worker
    threads, and take only offsets, lengths and addresses that are multiples of 4096; "buffered" drops
    again what a read leaves in the page cache. Interrupted and short reads are continued.
    ``bytes_per_s`` and ``latency_s`` slow reads down to those of another device; 0: as fast as they come.

    Raises:
        OSError: a file cannot be opened; with EINVAL where its file system refuses direct reads; with
            the filename "io_uring" where the system has or allows none.
    """

    def __init__(
        self,
        paths: Sequence[str],
        max_depth: int = 4,
        method: str = "direct",
        bytes_per_s: float = 0.0,
        latency_s: float = 0.0,
    ) -> None:
        names = [os.fsencode(path) for path in paths]
        super().__init__(_native.open_files(method, names, max_depth, bytes_per_s, latency_s))
        self.method = method

    @classmethod
    def of_blocks(
        cls,
        paths: Sequence[str],
        records: Sequence[tuple[int, Sequence[BlockSlice]]],
        max_depth: int = 4,
        method: str = "direct",
        bytes_per_s: float = 0.0,
        latency_s: float = 0.0,
    ) -> FileReader:
        """A reader of records that are packed of blocks as they arrive.

        ``records`` are in the order of their offsets, multiples of 4096 that stand for them: ``submit(0,
        offset, out)`` reads the record's matrices in their packed form, then zeros. Takes one and
        a half times ``max_depth`` buffers of 2 MiB, or of 16 rows where these take more.

        Raises:
            OSError: as of the constructor.
            ValueError: a slice names a file or has a shape that cannot be.
        """
        made = cls.__new__(cls)
        names = [os.fsencode(path) for path in paths]
        reader = _native.open_block_files(method, names, records, max_depth, bytes_per_s, latency_s)
        CompiledReader.__init__(made, reader)
        made.method = method
        return made

    def set_depth(self, depth: int) -> None:
        """How many reads are served at a time, up to ``max_depth``."""
        self._reader.set_depth(depth)

    def abandon(self, ticket: int) -> None:
        """Instead of wait(): nobody wants the read any more; its destination is free afterwards."""
        self.cancel(ticket)
        with contextlib.suppress(OSError):
            self.wait(ticket)

    def close(self) -> None:
        """Drop what is queued, finish what is being read, close the files. Later calls do nothing."""
        self._reader.close()
