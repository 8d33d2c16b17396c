"""The queue before the engine: a bounded number waits, clients take turns, the rest is told to come back."""

from __future__ import annotations

import asyncio
from collections import deque

from edgemoe.server.failures import Failure

RETRY_AFTER_S = 10


class FairQueue:
    """Gives out ``num_slots`` places. Of several clients the one that waits longest for a turn is next,
    however many requests another has sent. Used by one event loop.
    """

    def __init__(self, num_slots: int, num_waiting: int) -> None:
        self._num_free = num_slots
        self._most_waiting = num_waiting
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by client, in order of turns
        self.is_closed = False
        self.num_running = 0

    @property
    def num_waiting(self) -> int:
        """Requests that have no place yet."""
        return sum(len(futures) for futures in self._waiting.values())

    def check(self) -> None:
        """Whether a request could enter now.

        Raises:
            Failure: the queue is full (429), or the server stops (503).
        """
        if self.is_closed:
            raise stopping()
        if (self._waiting or not self._num_free) and self.num_waiting >= self._most_waiting:
            message = f"{self.num_waiting} requests are waiting; try again later"
            raise Failure(429, message, "queue_full", retry_after_s=RETRY_AFTER_S)

    async def enter(self, client: str) -> None:
        """Wait for a place; whoever gets one must ``leave``. Cancelling gives the turn up.

        Raises:
            Failure: the queue is full (429), or the server stops (503).
        """
        self.check()
        if self._num_free and not self._waiting:
            self._take()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.leave()  # the place had just been given
            else:
                self._forget(client, future)
            raise

    def leave(self) -> None:
        """Give a place back; the next client's first request gets it."""
        self.num_running -= 1
        self._num_free += 1
        while self._waiting and self._num_free:
            client = next(iter(self._waiting))
            futures = self._waiting.pop(client)
            future = futures.popleft()
            if futures:
                self._waiting[client] = futures  # behind the other clients
            if not future.done():
                self._take()
                future.set_result(None)

    def close(self) -> None:
        """Refuse those who wait and whoever comes; those who have a place keep it."""
        self.is_closed = True
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(stopping())
        self._waiting.clear()

    def _take(self) -> None:
        self._num_free -= 1
        self.num_running += 1

    def _forget(self, client: str, future: asyncio.Future[None]) -> None:
        futures = self._waiting.get(client)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._waiting[client]


def stopping() -> Failure:
    """What requests are told once the server is being stopped."""
    return Failure(503, "the server is stopping", "stopping", retry_after_s=RETRY_AFTER_S)
