"""Reads experts of a remote store: from the local tier where it has them, else over the network.

Requests over the network run on a thread of their own, many at a time, the most urgent first. Their bytes go
to their destination when all are there, and are then offered to the tier. A record from the tier is compared
with its checksum here; one that is damaged is forgotten and read over the network as if it had not been.
"""

from __future__ import annotations

import errno
import heapq
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from edgemoe.native import ByteArray
from edgemoe.store.expert_reader import Traffic
from edgemoe.store.remote import network
from edgemoe.store.remote.failures import RemoteFailure
from edgemoe.store.remote.files import NUM_TRIES, RemoteFiles
from edgemoe.store.remote.tier import MAX_DEPTH as TIER_DEPTH
from edgemoe.store.remote.tier import Record, Tier


@dataclass(slots=True)
class _Read:
    file: int
    offset: int
    out: ByteArray
    priority: int
    near: tuple[int, Record] | None = None  # ticket of the tier's reader, while it is read from there
    request: Future[None] | None = None  # while it is read over the network
    is_done: bool = False
    failure: RemoteFailure | None = None


class RemoteReader:
    """See ExpertReader; ``names`` are the files by their numbers. Closes the tier when it is closed."""

    def __init__(
        self, files: RemoteFiles, names: Sequence[str], max_depth: int = 16, tier: Tier | None = None
    ) -> None:
        self.failures: dict[tuple[int, int], RemoteFailure] = {}  # the last one, by file and offset
        self._files = files
        self._names = names
        self.tier = tier
        self._depth = max_depth
        self._reads: dict[int, _Read] = {}
        self._queue: list[tuple[int, int]] = []  # priority, ticket
        self._num_active = 0
        self._next_ticket = 0
        self._far_bytes = self._tier_bytes = 0
        self._is_closed = False
        self._changed = threading.Condition()

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(self._far_bytes, self._tier_bytes)

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
            read = self._reads[ticket] = _Read(file, offset, out, priority)
            record = None if self.tier is None else self.tier.find(file, offset, len(out))
            if record is None or self.tier is None:
                heapq.heappush(self._queue, (priority, ticket))
            else:
                read.near = (self.tier.reader.submit(file, offset, out, priority), record)
        return ticket

    def begin(self) -> None:
        """See ExpertReader."""
        if self.tier is not None:
            self.tier.reader.begin()
        with self._changed:
            self._start_queued()

    def wait(self, ticket: int) -> None:
        """See ExpertReader; the text of the error says what failed."""
        self._check((ticket,), "wait")
        while not self.wait_some([ticket]):
            pass
        with self._changed:
            read = self._reads.pop(ticket)
        if read.failure is not None:
            address = self._files.address.of(self._names[read.file])
            raise OSError(read.failure.code, read.failure.reason, address)

    def wait_some(self, tickets: Sequence[int], block: bool = True) -> list[int]:
        """See ExpertReader.

        Reads from the tier end soon: while there are any, they are what is waited for.
        """
        if not tickets:
            raise ValueError("wait_some: no tickets")
        self._check(tickets, "wait_some")
        while True:
            with self._changed:
                self._start_queued()
                reads = {ticket: self._reads[ticket] for ticket in tickets}
                done = [ticket for ticket, read in reads.items() if read.is_done]
                near = [ticket for ticket, read in reads.items() if read.near is not None]
                if not near and (done or not block):
                    return done
                if not near:
                    self._changed.wait()
                    continue
            has_settled = self._settle(near, block and not done)
            if not has_settled and (done or not block):
                return done

    def set_depth(self, depth: int) -> None:
        """See ExpertReader."""
        with self._changed:
            self._depth = depth
        if self.tier is not None:
            self.tier.reader.set_depth(min(depth, TIER_DEPTH))

    def cancel(self, ticket: int) -> bool:
        """See ExpertReader."""
        with self._changed:
            read = self._reads.get(ticket)
            if read is None or read.is_done or read.request is not None:
                return False
            if read.near is None:
                self._queue.remove((read.priority, ticket))
                heapq.heapify(self._queue)
            elif self.tier is not None and self.tier.reader.cancel(read.near[0]):
                self.tier.reader.wait(read.near[0])
            else:
                return False
            self._end(read)
            return True

    def abandon(self, ticket: int) -> None:
        """See ExpertReader; a request under way is given up and not waited for."""
        while not self.cancel(ticket):
            with self._changed:
                read = self._reads[ticket]
                self._give_up(read)
                if read.is_done:
                    break
            self._settle([ticket], block=True)
        with self._changed:
            del self._reads[ticket]

    def close(self) -> None:
        """See ExpertReader; requests under way are given up."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.clear()
            for read in self._reads.values():
                self._give_up(read)
                if read.near is None:
                    self._end(read)
            near = [ticket for ticket, read in self._reads.items() if read.near is not None]
        if self.tier is not None:
            self.tier.close()
        self._settle(near, block=False)

    def _check(self, tickets: Sequence[int], operation: str) -> None:
        with self._changed:
            for ticket in tickets:
                if ticket not in self._reads:
                    raise ValueError(f"{operation}: unknown ticket {ticket}")

    def _end(self, read: _Read) -> None:
        """Nothing is written to its destination any more; under the lock."""
        read.near = read.request = None
        read.is_done = True
        self._changed.notify_all()

    def _give_up(self, read: _Read) -> None:
        """Cancel a request under way, if there is one; under the lock."""
        if read.request is not None:
            read.request.cancel()
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
        if data is not None and self.tier is not None:
            self.tier.offer(read.file, read.offset, data)

    def _take(self, read: _Read, data: ByteArray | None, failure: RemoteFailure | None) -> None:
        """What came of a request; under the lock, so that nobody gives its destination away meanwhile."""
        if data is not None:
            read.out[:] = data
            self._far_bytes += len(data)
            self.failures.pop((read.file, read.offset), None)
        elif failure is None:
            failure = RemoteFailure("given up", is_lasting=False, code=errno.ECANCELED)
        read.failure = failure
        self._end(read)

    def _settle(self, tickets: Sequence[int], block: bool) -> bool:
        """Take in reads from the tier that have ended; False if none has."""
        with self._changed:
            near: dict[int, _Read] = {}
            for ticket in tickets:
                read = self._reads.get(ticket)
                if read is not None and read.near is not None:
                    near[read.near[0]] = read
        if self.tier is None or not near:
            return False
        ended = self.tier.reader.wait_some(list(near), block)
        for number in ended:
            self._take_near(number, near[number], self.tier)
        return bool(ended)

    def _take_near(self, number: int, read: _Read, tier: Tier) -> None:
        assert read.near is not None
        record = read.near[1]
        try:
            tier.reader.wait(number)
            is_sound = record.is_sound(read.out)
        except OSError:
            is_sound = False
        with self._changed:
            if is_sound or self._is_closed:
                self._tier_bytes += len(read.out) if is_sound else 0
                self._end(read)
            else:
                read.near = None
                ticket = next(t for t, other in self._reads.items() if other is read)
                heapq.heappush(self._queue, (read.priority, ticket))
                self._start_queued()
        if is_sound:
            tier.use(record)
        elif not self._is_closed:
            tier.forget(record)
