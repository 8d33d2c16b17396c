"""Responses that are made while no client waits: asked for with ``background``, fetched by their id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from edgemoe.server.answers import Burst
from edgemoe.server.failures import failure_of
from edgemoe.server.openai.responses_answer import ResponsesEncoder
from edgemoe.server.openai.stored import Kept

log = logging.getLogger("edgemoe.server")

UNFINISHED = {"queued", "in_progress"}

Keep = Callable[[str, Kept], Awaitable[None]]


@dataclass(frozen=True)
class _Running:
    kept: Kept  # its response grows
    task: asyncio.Task[None]


class Background:
    """What is being made; used by one event loop."""

    def __init__(self, keep: Keep) -> None:
        """``keep`` is called with an owner and a response at its end, whatever that is."""
        self._keep = keep
        self._running: dict[tuple[str, str], _Running] = {}  # by owner and id

    def start(self, owner: str, kept: Kept, encoder: ResponsesEncoder, told: AsyncGenerator[Burst]) -> None:
        """Make the response that the encoder begins, of events."""
        kept.response["status"] = "queued"
        task = asyncio.create_task(self._make(owner, kept, encoder, told))
        self._running[owner, kept.response["id"]] = _Running(kept, task)

    async def _make(
        self, owner: str, kept: Kept, encoder: ResponsesEncoder, told: AsyncGenerator[Burst]
    ) -> None:
        response_id = kept.response["id"]
        try:
            await _follow(told, encoder)
        except asyncio.CancelledError:
            encoder.cancel()
        except Exception as error:
            failure = failure_of(error)
            if failure.code == "internal_error":
                log.exception("%s failed", response_id)
            encoder.fail(failure)
        log.info("%s %s", response_id, kept.response["status"])
        try:
            await self._keep(owner, kept)
        finally:
            del self._running[owner, response_id]

    def find(self, owner: str, response_id: str) -> Kept | None:
        """A response as far as it is made."""
        running = self._running.get((owner, response_id))
        return None if running is None else running.kept

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


async def _follow(told: AsyncGenerator[Burst], encoder: ResponsesEncoder) -> None:
    async with aclosing(told) as bursts:
        async for burst in bursts:
            if burst:
                encoder.response["status"] = "in_progress"
            for item in burst or ():
                encoder.take(*item)
