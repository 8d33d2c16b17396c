"""The events of a response by their numbers, for readers that begin anywhere, leave and come back.

Snapshots of the response are kept as what they differ in, since each would repeat the whole request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgemoe.server.failures import Failure
from edgemoe.server.streaming import named

# A line as it is sent, or a snapshot: the event's kind, and the response's status at that time.
Entry = str | Sequence[str]

ENTRY_BYTES = 64  # what an entry takes beside its text
MOST_AT_ONCE = 256  # entries that are sent in one piece
# What a response has before anything is written.
BLANK: Mapping[str, Any] = {
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
    "output": [],
    "usage": None,
}
UNFINISHED = {"queued", "in_progress"}
# Official clients know no event of their own for a response that was cancelled; its status says it.
ENDINGS = {"completed": "response.completed", "failed": "response.failed"}
OTHER_ENDING = "response.incomplete"


def snapshot(kind: str, number: int, response: Mapping[str, Any]) -> str:
    """An event that tells of the whole response."""
    return named({"type": kind, "sequence_number": number, "response": response})


def ending(number: int, response: Mapping[str, Any]) -> str:
    """The last event of a response that has ended."""
    return snapshot(ENDINGS.get(response["status"], OTHER_ENDING), number, response)


def lines_of(entries: Iterable[Entry], first: int, response: Mapping[str, Any]) -> Iterator[str]:
    """Entries as they are sent, numbered from ``first`` on."""
    for number, entry in enumerate(entries, first):
        if isinstance(entry, str):
            yield entry
        else:
            kind, status = entry
            yield snapshot(kind, number, {**response, **BLANK, "status": status})


class EventLog:
    """The events of a response that is being made. Used by one event loop."""

    def __init__(self, most_bytes: int) -> None:
        """So many bytes at most; beyond that the oldest are dropped."""
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._first = 0  # number of the oldest that is there
        self._entries: list[Entry] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self.is_closed = False

    @property
    def end(self) -> int:
        """The number of the next entry."""
        return self._first + len(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add what has happened."""
        for entry in entries:
            self._entries.append(entry)
            self._num_bytes += _size(entry)
        while self._num_bytes > self._most_bytes:
            num_dropped = (len(self._entries) + 1) // 2
            self._num_bytes -= sum(map(_size, self._entries[:num_dropped]))
            self._first += num_dropped
            del self._entries[:num_dropped]
        self._wake()

    def close(self) -> None:
        """Nothing more will happen; only the ending is left to tell."""
        self.is_closed = True
        self._wake()

    def whole(self) -> list[Entry]:
        """All entries; none where the oldest were dropped."""
        return [] if self._first else list(self._entries)

    def since(self, number: int) -> list[Entry]:
        """The next entries from a number on.

        Raises:
            Failure: they are no longer there.
        """
        if number < self._first:
            raise gone(number)
        start = number - self._first
        return self._entries[start : start + MOST_AT_ONCE]

    async def grown(self, seconds: float) -> bool:
        """Wait for a change; whether there was one in time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            done, _ = await asyncio.wait([future], timeout=seconds)
            return bool(done)
        finally:
            self._waiting.discard(future)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


async def read_log(
    log: EventLog, response: Mapping[str, Any], after: int, heartbeat_s: float
) -> AsyncGenerator[str]:
    """The lines of a response behind the event of a number, as they come, to the last. After each silence a
    snapshot repeats the number before it, so a reader that comes back misses nothing.
    """
    place = after + 1
    while True:
        try:
            entries = log.since(place)
        except Failure as failure:  # this reader was too slow
            yield named({"type": "error", "sequence_number": place, **_error(failure)})
            return
        if entries:
            yield "".join(lines_of(entries, place, response))
            place += len(entries)
        elif log.is_closed:
            break
        elif not await log.grown(heartbeat_s) and response["status"] in UNFINISHED:
            yield snapshot(f"response.{response['status']}", max(place - 1, 0), response)
    if place <= log.end:
        yield ending(log.end, response)


async def read_kept(entries: Sequence[Entry], response: Mapping[str, Any], after: int) -> AsyncGenerator[str]:
    """The lines of a response that has ended, behind the event of a number."""
    for start in range(after + 1, len(entries), MOST_AT_ONCE):
        yield "".join(lines_of(entries[start : start + MOST_AT_ONCE], start, response))
    if after < len(entries):
        yield ending(len(entries), response)


def gone(number: int) -> Failure:
    """Events are asked for that are not kept."""
    message = f"This response can no longer be streamed from event {number} on; retrieve it without stream."
    return Failure(400, message, "events_not_kept", "starting_after")


def _error(failure: Failure) -> Mapping[str, Any]:
    return {"code": failure.code, "message": failure.message, "param": failure.param}


def _size(entry: Entry) -> int:
    return ENTRY_BYTES + (len(entry) if isinstance(entry, str) else 0)
