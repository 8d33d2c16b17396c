"""What is on its way from a maker to a client: taken in bursts, with a sign when nothing comes.

A maker that is faster than its client costs one waking up and one write for many items; a slow one, one for
each. Used by one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """It will not."""


Later = Callable[[float, Callable[[], None]], Timer]


class Outbox(Generic[T]):
    """Items in order, for one taker."""

    def __init__(self, later: Later | None = None) -> None:
        """``later`` calls a function after so many seconds; the event loop's own way if it is None."""
        self._later = later
        self._items: list[T] = []
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add an item."""
        self._items.append(item)
        self._wake()

    def replace(self, item: T) -> None:
        """Put an item in the place of those that nobody has taken."""
        self._items = [item]
        self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes; ``error`` is raised to the taker behind the last item."""
        self._is_closed, self._error = True, error
        self._wake()

    async def take(self, silence_s: float) -> list[T] | None:
        """All items there are, at least one; [] behind the last; None if none came for ``silence_s``, at once
        if that is not above 0.
        """
        if not self._items and not self._is_closed:
            await self._wait(silence_s)
        if self._items:
            items, self._items = self._items, []
            return items
        if not self._is_closed:
            return None
        if self._error is not None:
            raise self._error
        return []

    async def _wait(self, silence_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = (self._later or loop.call_later)(silence_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
