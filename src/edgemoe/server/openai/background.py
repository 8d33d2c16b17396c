"""Responses that are made whether a client waits or not: asked for with ``background``, found by their id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from edgemoe.server.answers import Burst
from edgemoe.server.events import Progress
from edgemoe.server.failures import failure_of
from edgemoe.server.openai.event_log import UNFINISHED, EventLog
from edgemoe.server.openai.responses_answer import ResponsesEncoder
from edgemoe.server.openai.stored import Kept

log = logging.getLogger("edgemoe.server")

Keep = Callable[[str, Kept], Awaitable[None]]


@dataclass(frozen=True)
class Running:
    """A response that is being made."""

    kept: Kept  # its response grows
    events: EventLog
    task: asyncio.Task[None]


class Background:
    """What is being made; used by one event loop."""

    def __init__(self, keep: Keep, event_bytes: int) -> None:
        """``keep`` is called with an owner and a response at its end, whatever that is. Of the events of each
        response so many bytes are there while it is made.
        """
        self._keep = keep
        self._event_bytes = event_bytes
        self._running: dict[tuple[str, str], Running] = {}  # by owner and id

    def start(
        self, owner: str, kept: Kept, encoder: ResponsesEncoder, told: AsyncGenerator[Burst]
    ) -> Running:
        """Make the response that the encoder begins, of events."""
        kept.response["status"] = "queued"
        events = EventLog(self._event_bytes)
        events.add([("response.created", "queued"), ("response.queued", "queued")])
        task = asyncio.create_task(self._make(owner, kept, events, encoder, told))
        running = Running(kept, events, task)
        self._running[owner, kept.response["id"]] = running
        return running

    async def _make(
        self, owner: str, kept: Kept, events: EventLog, encoder: ResponsesEncoder, told: AsyncGenerator[Burst]
    ) -> None:
        response_id = kept.response["id"]
        try:
            await _follow(told, encoder, events)
        except asyncio.CancelledError:
            events.add(encoder.cancel())
        except Exception as error:
            failure = failure_of(error)
            if failure.code == "internal_error":
                log.exception("%s failed", response_id)
            encoder.fail(failure)
        log.info("%s %s", response_id, kept.response["status"])
        try:
            await self._keep(owner, replace(kept, events=events.whole()))
        finally:
            del self._running[owner, response_id]
            events.close()

    def find(self, owner: str, response_id: str) -> Running | None:
        """A response as far as it is made."""
        return self._running.get((owner, response_id))

    async def cancel(self, owner: str, response_id: str) -> None:
        """End a response, if it is being made; then it is kept as far as it went."""
        running = self._running.get((owner, response_id))
        if running is not None:
            if running.kept.response["status"] in UNFINISHED:  # or it is just being put by
                running.task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running.task])

    async def close(self) -> None:
        """End all."""
        for owner, response_id in list(self._running):
            await self.cancel(owner, response_id)


async def _follow(told: AsyncGenerator[Burst], encoder: ResponsesEncoder, events: EventLog) -> None:
    """Progress is left out: there would be more of it than of the answer, and silence is filled anyway."""
    async with aclosing(told) as bursts:
        async for burst in bursts:
            if burst and encoder.response["status"] == "queued":
                encoder.response["status"] = "in_progress"
                events.add([("response.in_progress", "in_progress")])
                encoder.number = events.end
            for choice, event in burst or ():
                if not isinstance(event, Progress):
                    events.add(encoder.encode(choice, event))
