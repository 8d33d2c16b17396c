"""The seam to storage: who fetches ranges of a store's files, and how.

``open_reader`` gives a reader of files, direct or buffered; ``MemoryReader`` serves bytes from memory with
latency, bandwidth, faults and reordering on request.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgemoe.errors import RequestError, StoreError
from edgemoe.native import READ_METHODS, ByteArray, FileReader

READER_KINDS = ("auto", *READ_METHODS)


@dataclass(frozen=True, slots=True)
class Device:
    """How a storage device is slow; 0 bytes per second: as fast as reads come."""

    bytes_per_s: float = 0.0
    latency_s: float = 0.0


# Sequential read rates as the paper gives them for its two boards (arXiv 2308.14352, section V), and as
# is usual for the rest. Latencies are typical of the kind of device.
DEVICES: Mapping[str, Device] = {
    "jetson-tx2-ssd": Device(550e6, 100e-6),
    "jetson-tx2-usb": Device(50e6, 500e-6),
    "rpi4-sd": Device(40e6, 500e-6),
    "nvme": Device(2000e6, 80e-6),
    "network": Device(1100e6, 500e-6),  # a file server by 10-gigabit Ethernet
}


def find_device(name: str) -> Device:
    """The device profile of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in DEVICES:
        raise RequestError(f"no device profile {name!r}; choose one of {', '.join(DEVICES)}")
    return DEVICES[name]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that came over the network, and those that a local copy spared it."""

    far_bytes: int = 0
    tier_bytes: int = 0


_NO_TRAFFIC = Traffic()


def traffic_of(reader: ExpertReader) -> Traffic:
    """What a reader of storage that is far has moved so far; nothing of any other."""
    found = getattr(reader, "traffic", None)
    return found if isinstance(found, Traffic) else _NO_TRAFFIC


class ExpertReader(Protocol):
    """Fetches ranges of a fixed list of files. Thread-safe; every ticket is waited for once."""

    def submit(self, file: int, offset: int, out: ByteArray, priority: int = 0) -> int:
        """Queue a read of ``len(out)`` bytes into ``out``; lower priorities first. Returns a ticket.

        It starts with the next ``begin`` or wait at the latest.

        Raises:
            ValueError: no such file, or a range that the reader cannot read.
            RuntimeError: the reader is closed.
        """
        ...

    def begin(self) -> None:
        """Start what is queued, several reads at the cost of one; what is beyond the depth follows."""
        ...

    def wait(self, ticket: int) -> None:
        """Block until the read has ended.

        Raises:
            OSError: it failed.
            ValueError: no such ticket, or it was waited for before.
        """
        ...

    def wait_some(self, tickets: Sequence[int], block: bool = True) -> list[int]:
        """Those of the tickets that have ended, well or not; while there is none, block or return none.

        Raises:
            ValueError: no tickets, or an unknown one.
        """
        ...

    def set_depth(self, depth: int) -> None:
        """How many reads are served at a time, at most; 1 or more."""
        ...

    def cancel(self, ticket: int) -> bool:
        """Drop a read that has not started; True if so, and then wait() returns at once."""
        ...

    def abandon(self, ticket: int) -> None:
        """Instead of ``wait``: nobody wants the read any more. Its destination is free afterwards."""
        ...

    def close(self) -> None:
        """Drop what is queued and release everything. Later calls do nothing."""
        ...


def open_reader(
    paths: Sequence[Path], kind: str = "auto", max_depth: int = 4, device: Device | None = None
) -> FileReader:
    """A reader of these files, up to ``max_depth`` reads at a time.

    "ring" reads directly by io_uring, "direct" on worker threads; "buffered" through the page cache. "auto"
    takes the first of them that kernel and file system allow. ``device`` slows reads down to those of
    another storage device.

    Raises:
        RequestError: unknown kind.
        StoreError: a file cannot be opened, or not in this way.
    """
    names, speed = [str(path) for path in paths], device or Device()
    return open_by_kind(
        kind, lambda method: FileReader(names, max_depth, method, speed.bytes_per_s, speed.latency_s)
    )


def open_by_kind(kind: str, open_by: Callable[[str], FileReader]) -> FileReader:
    """``open_by`` the first method that a kind of reader allows and that works; see ``open_reader``.

    Raises:
        RequestError: unknown kind.
        StoreError: a file cannot be opened, or not in this way.
    """
    if kind not in READER_KINDS:
        raise RequestError(f"no reader {kind!r}; choose one of {', '.join(READER_KINDS)}")
    for method in READ_METHODS if kind == "auto" else (kind,):
        try:
            return open_by(method)
        except OSError as error:
            is_refused = error.errno == errno.EINVAL or error.filename == "io_uring"
            if error.errno == errno.EAGAIN:
                raise StoreError(
                    "no thread can be made to read with; raise the limit of processes (ulimit -u, pids.max)"
                ) from error
            if kind != "auto" or not is_refused or method == READ_METHODS[-1]:
                raise StoreError(f"{error.filename}: cannot be opened: {error.strerror}") from error
    raise AssertionError("the last method returns or raises")


class MemoryReader:
    """Serves reads from byte strings on one thread, in order of priority.

    ``latency_s`` and ``bytes_per_s`` slow every read; ``fault(file, offset)`` may return an errno that
    the read fails with; ``seed`` serves requests of equal priority in a random order.
    """

    def __init__(
        self,
        files: Sequence[bytes | ByteArray],
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
        fault: Callable[[int, int], int] | None = None,
        seed: int | None = None,
    ) -> None:
        self._files = [np.frombuffer(data, np.uint8) for data in files]
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._fault = fault
        self._random = None if seed is None else np.random.default_rng(seed)
        self._queue: list[tuple[int, float, int, int, int, ByteArray]] = []
        self._errors: dict[int, int | None] = {}  # ticket -> errno, 0, or None while under way
        self._next_ticket = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, file: int, offset: int, out: ByteArray, priority: int = 0) -> int:
        """See ExpertReader."""
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the reader is closed")
            if not 0 <= file < len(self._files):
                raise ValueError(f"submit: no file number {file}")
            if offset < 0:
                raise ValueError("submit: negative offset")
            ticket = self._next_ticket
            self._next_ticket += 1
            order = ticket if self._random is None else self._random.random()
            self._queue.append((priority, order, ticket, file, offset, out))
            self._errors[ticket] = None
            self._changed.notify_all()
        return ticket

    def begin(self) -> None:
        """See ExpertReader; reads start by themselves."""

    def wait(self, ticket: int) -> None:
        """See ExpertReader."""
        with self._changed:
            if ticket not in self._errors:
                raise ValueError(f"wait: unknown ticket {ticket}")
            self._changed.wait_for(lambda: self._errors[ticket] is not None)
            error = self._errors.pop(ticket)
        if error:
            raise OSError(error, os.strerror(error), "memory")

    def wait_some(self, tickets: Sequence[int], block: bool = True) -> list[int]:
        """See ExpertReader."""
        with self._changed:
            if not tickets:
                raise ValueError("wait_some: no tickets")
            for ticket in tickets:
                if ticket not in self._errors:
                    raise ValueError(f"wait_some: unknown ticket {ticket}")
            if block:
                self._changed.wait_for(lambda: any(self._errors[t] is not None for t in tickets))
            return [ticket for ticket in tickets if self._errors[ticket] is not None]

    def set_depth(self, depth: int) -> None:
        """See ExpertReader; one thread serves one read at a time."""

    def cancel(self, ticket: int) -> bool:
        """See ExpertReader."""
        with self._changed:
            left = [request for request in self._queue if request[2] != ticket]
            if len(left) == len(self._queue):
                return False
            self._queue = left
            self._errors[ticket] = 0
            self._changed.notify_all()
            return True

    def abandon(self, ticket: int) -> None:
        """See ExpertReader."""
        self.cancel(ticket)
        with contextlib.suppress(OSError):
            self.wait(ticket)

    def close(self) -> None:
        """See ExpertReader."""
        with self._changed:
            self._is_closed = True
            for request in self._queue:
                self._errors[request[2]] = 0
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._queue)
                if not self._queue:
                    return
                request = min(self._queue, key=lambda r: r[:2])
                self._queue.remove(request)
            _, _, ticket, file, offset, out = request
            error = self._read(file, offset, out)
            with self._changed:
                self._errors[ticket] = error
                self._changed.notify_all()

    def _read(self, file: int, offset: int, out: ByteArray) -> int:
        time.sleep(self._latency_s + (len(out) / self._bytes_per_s if self._bytes_per_s else 0))
        error = self._fault(file, offset) if self._fault else 0
        if error:
            return error
        data = self._files[file][offset : offset + len(out)]
        if len(data) < len(out):
            return errno.EIO
        out[:] = data
        return 0
