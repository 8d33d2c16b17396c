"""The application: which path does what. Any ASGI host can run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp

from edgemoe.server.answers import Answers
from edgemoe.server.anthropic_routes import AnthropicRoutes
from edgemoe.server.guard import Guard
from edgemoe.server.metrics import CONTENT_TYPE, Metrics
from edgemoe.server.openai.stored import StoredResponses
from edgemoe.server.openai_routes import OpenAIRoutes
from edgemoe.server.options import ServerOptions
from edgemoe.server.page_routes import PageRoutes
from edgemoe.server.responses_routes import ResponsesRoutes
from edgemoe.server.shelf import Shelf

IDLE_CHECK_S = 5.0
PARK_CHECK_S = 2.0


class Application:
    """An ASGI application; ``drain`` makes it refuse new work."""

    def __init__(self, shelf: Shelf, options: ServerOptions) -> None:
        self.shelf = shelf
        self.options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        self.metrics = Metrics()
        self.answers = Answers(shelf, options, self.metrics)
        self.metrics.watch_queue(
            lambda: self.answers.queue.num_running, lambda: self.answers.queue.num_waiting
        )
        self.metrics.watch_parking(lambda: shelf.resident.parking if shelf.resident else None)
        self.metrics.watch_engine(lambda: shelf.resident.model.stats() if shelf.resident else None)
        stored = StoredResponses(options.limits.num_stored, options.limits.stored_bytes)
        openai = OpenAIRoutes(self.answers, stored)
        self._responses = ResponsesRoutes(self.answers, stored)
        anthropic = AnthropicRoutes(self.answers)
        page = PageRoutes(self.answers)
        routes = [
            *openai.routes(),
            *self._responses.routes(),
            *anthropic.routes(),
            *page.routes(),
            *self._own_routes(),
        ]
        # A bare router: errors reach the guard, which writes them in the words of the path's protocol.
        router = Router(routes, redirect_slashes=False, lifespan=self._lifespan)
        self._app: ASGIApp = Guard(router, options, self.metrics)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection; an ASGI application."""
        scope["app"] = self
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.answers.queue.is_closed:  # else the host ends, and would log this as a defect of ours
                raise

    def drain(self) -> None:
        """Let running answers end; refuse those who wait and whoever comes. For the event loop's thread."""
        self.answers.queue.close()

    def drain_soon(self) -> None:
        """As ``drain``, from a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.drain)

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        first = next(iter(self.shelf.stores))
        async with self.shelf.use(first):
            pass
        chores = [asyncio.create_task(chore) for chore in (self._unload_idle(), self._park_idle())]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            self.drain()
            await self._responses.close()
            await self.shelf.close()
            self.answers.close()

    async def _unload_idle(self) -> None:
        if self.options.idle_unload_s is None:
            return
        while True:
            await asyncio.sleep(min(IDLE_CHECK_S, self.options.idle_unload_s))
            await self.shelf.unload_if_idle(self.options.idle_unload_s)

    async def _park_idle(self) -> None:
        """Write states of texts to disk while nobody asks for anything."""
        queue = self.answers.queue
        while self.options.park is not None:
            await asyncio.sleep(PARK_CHECK_S)
            if queue.num_running == 0:
                await self.shelf.park(lambda: queue.num_running > 0)

    def _own_routes(self) -> Sequence[BaseRoute]:
        return [
            Route("/health", self._health),
            Route("/v1/health", self._health),
            Route("/metrics", self._metrics),
        ]

    async def _health(self, _: Request) -> Response:
        is_open = not self.answers.queue.is_closed
        status = {"status": "ok" if is_open else "stopping", "model": self.shelf.resident_name}
        return JSONResponse(status, 200 if is_open else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)
