"""An answer for asyncio: the model computes on a worker thread while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from edgemoe.engine.answer import Chunk, Generation
from edgemoe.engine.generation import Stream


class AsyncStream(AsyncIterator[Chunk]):
    """Iterate with ``async for``; a task that is cancelled, or leaves ``async with``, ends the answer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __anext__(self) -> Chunk:
        """The next piece; see Stream."""
        try:
            chunk = await asyncio.to_thread(next, self._stream, None)
        except asyncio.CancelledError:
            self._stream.cancel()  # the worker ends with the step it is making
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def cancel(self) -> None:
        """See Stream."""
        self._stream.cancel()

    async def aclose(self) -> None:
        """End the answer here."""
        self._stream.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def generation(self) -> Generation:
        """The answer so far; complete once the iteration has ended."""
        return self._stream.generation
