"""Reads experts of a remote store: by range over the network, and from the local tier where it has them.

Requests run on the network's thread, many at a time, the most urgent first. Their bytes go to their
destination when all are there, and are then offered to the tier. What the tier has is read in compiled code
(native/io/tiered_reader.h), which comes here for the rest and for what it finds damaged.
"""

from __future__ import annotations

import errno
import heapq
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from edgemoe import native
from edgemoe.native import ByteArray
from edgemoe.store.expert_reader import Device, Traffic
from edgemoe.store.remote import network
from edgemoe.store.remote.failures import RemoteFailure
from edgemoe.store.remote.files import NUM_TRIES, RemoteFiles
from edgemoe.store.remote.tier import MAX_DEPTH as TIER_DEPTH
from edgemoe.store.remote.tier import Tier


@dataclass(slots=True)
class _Read:
    file: int
    offset: int
    out: ByteArray
    priority: int
    request: Future[None] | None = None  # while it is under way
    is_done: bool = False
    failure: RemoteFailure | None = None


class RemoteReader:
    """See ExpertReader; ``names`` are the files by their numbers. What it brings is offered to ``tier``."""

    def __init__(
        self, files: RemoteFiles, names: Sequence[str], max_depth: int = 16, tier: Tier | None = None
    ) -> None:
        self.failures: dict[tuple[int, int], RemoteFailure] = {}  # the last one, by file and offset
        self._files = files
        self._names = names
        self._tier = tier
        self._depth = max_depth
        self._reads: dict[int, _Read] = {}
        self._queue: list[tuple[int, int]] = []  # priority, ticket
        self._num_active = 0
        self._next_ticket = 0
        self._num_bytes = 0
        self._is_closed = False
        self._changed = threading.Condition()

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(far_bytes=self._num_bytes)

    def submit(self, file: int, offset: int, out: ByteArray, priority: int = 0) -> int:
        """See ExpertReader."""
        if not 0 <= file < len(self._names):
            raise ValueError(f"submit: no file number {file}")
        if offset < 0:
            raise ValueError("submit: negative offset")
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the reader is closed")
            ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
            self._reads[ticket] = _Read(file, offset, out, priority)
            heapq.heappush(self._queue, (priority, ticket))
        return ticket

    def begin(self) -> None:
        """See ExpertReader."""
        with self._changed:
            self._start_queued()

    def wait(self, ticket: int) -> None:
        """See ExpertReader; the text of the error says what failed."""
        with self._changed:
            read = self._find(ticket, "wait")
            self._start_queued()
            self._changed.wait_for(lambda: read.is_done)
            del self._reads[ticket]
        if read.failure is not None:
            address = self._files.address.of(self._names[read.file])
            raise OSError(read.failure.code, read.failure.reason, address)

    def wait_some(self, tickets: Sequence[int], block: bool = True) -> list[int]:
        """See ExpertReader."""
        if not tickets:
            raise ValueError("wait_some: no tickets")
        with self._changed:
            reads = {ticket: self._find(ticket, "wait_some") for ticket in tickets}
            self._start_queued()
            if block:
                self._changed.wait_for(lambda: any(read.is_done for read in reads.values()))
            return [ticket for ticket, read in reads.items() if read.is_done]

    def set_depth(self, depth: int) -> None:
        """See ExpertReader."""
        with self._changed:
            self._depth = depth

    def cancel(self, ticket: int) -> bool:
        """See ExpertReader."""
        with self._changed:
            read = self._reads.get(ticket)
            if read is None or read.is_done or read.request is not None:
                return False
            self._queue.remove((read.priority, ticket))
            heapq.heapify(self._queue)
            self._end(read)
            return True

    def abandon(self, ticket: int) -> None:
        """See ExpertReader; a request under way is given up and not waited for."""
        with self._changed:
            if not self.cancel(ticket):
                self._give_up(self._find(ticket, "abandon"))
            del self._reads[ticket]

    def close(self) -> None:
        """See ExpertReader; requests under way are given up."""
        with self._changed:
            self._is_closed = True
            self._queue.clear()
            for read in self._reads.values():
                self._give_up(read)

    def _find(self, ticket: int, operation: str) -> _Read:
        if ticket not in self._reads:
            raise ValueError(f"{operation}: unknown ticket {ticket}")
        return self._reads[ticket]

    def _end(self, read: _Read) -> None:
        """Nothing is written to its destination any more; under the lock."""
        read.request = None
        read.is_done = True
        self._changed.notify_all()

    def _give_up(self, read: _Read) -> None:
        """End a read that is not done; under the lock."""
        if read.request is not None:
            read.request.cancel()
        if not read.is_done:
            self._end(read)

    def _start_queued(self) -> None:
        """Begin requests as far as the depth allows; under the lock."""
        while self._queue and self._num_active < self._depth:
            _, ticket = heapq.heappop(self._queue)
            read = self._reads[ticket]
            self._num_active += 1
            read.request = request = network.start(self._fetch(read))
            request.add_done_callback(self._request_ended)

    def _request_ended(self, request: Future[None]) -> None:
        """Well or not, or cancelled before it began."""
        with self._changed:
            self._num_active -= 1
            self._start_queued()

    async def _fetch(self, read: _Read) -> None:
        data, failure = None, None
        place = read.file, read.offset
        try:
            # Whoever has failed to the end already is not made to wait for that again.
            num_tries = 1 if place in self.failures else NUM_TRIES
            stop = read.offset + len(read.out)
            data = await self._files.read(self._names[read.file], read.offset, stop, num_tries)
        except RemoteFailure as error:
            failure = self.failures[place] = error
        finally:
            with self._changed:
                if not read.is_done:
                    self._take(read, data, failure)
        if data is not None and self._tier is not None:
            self._tier.offer(read.file, read.offset, data)

    def _take(self, read: _Read, data: ByteArray | None, failure: RemoteFailure | None) -> None:
        """What came of a request; under the lock, so that nobody gives its destination away meanwhile."""
        if data is not None:
            read.out[:] = data
            self._num_bytes += len(data)
            self.failures.pop((read.file, read.offset), None)
        elif failure is None:
            failure = RemoteFailure("given up", is_lasting=False, code=errno.ECANCELED)
        read.failure = failure
        self._end(read)


class TieredReader(native.TieredReader):
    """See ExpertReader: the tier, and behind it the network; both are closed with it."""

    def __init__(
        self, far: RemoteReader, tier: Tier, kind: str = "auto", device: Device | None = None
    ) -> None:
        """``kind`` and ``device`` are for the tier; see ``open_reader``."""
        self.tier = tier
        self._far = far
        self._near = tier.open_reader(kind, device)
        records = [(r.file, r.offset, r.num_bytes, int(r.checksum, 16)) for r in tier.records]
        super().__init__(self._near, far, records, tier.table, tier.forget)

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(self._far.traffic.far_bytes, self.near_bytes)

    def set_depth(self, depth: int) -> None:
        """See ExpertReader."""
        self._far.set_depth(depth)
        self._near.set_depth(min(depth, TIER_DEPTH))

    def close(self) -> None:
        """See ExpertReader."""
        self._far.close()
        self._near.close()
        self.tier.close()
