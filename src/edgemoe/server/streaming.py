"""Sending an answer while it is made: server-sent events, heartbeats, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgemoe.server.answers import Burst
from edgemoe.server.events import Event
from edgemoe.server.failures import Failure, failure_of
from edgemoe.server.patience import Patience

T = TypeVar("T")

SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # proxies pass on every event at once
}


class Encoder(Protocol):
    """Turns events into the lines of one protocol."""

    def opening(self) -> Iterable[str]:
        """What is sent before the prompt is read."""

    def encode(self, choice: int, event: Event) -> Iterable[str]:
        """What an event is in this protocol; maybe nothing."""

    def heartbeat(self) -> Iterable[str]:
        """What tells a client that the answer is still being made. It carries data: some clients do not count
        comments.
        """

    def closing(self) -> Iterable[str]:
        """What ends an answer."""

    def broken(self, failure: Failure) -> Iterable[str]:
        """What ends an answer that cannot go on."""


_encode = json.JSONEncoder(separators=(",", ":")).encode


def data(value: Mapping[str, Any]) -> str:
    """One event without a name."""
    return f"data: {dump(value)}\n\n"


def named(value: Mapping[str, Any]) -> str:
    """One event under its type's name; Anthropic's clients skip events without one."""
    return f"event: {value['type']}\ndata: {dump(value)}\n\n"


def dump(value: Any) -> str:
    """Compact JSON. Line separators that JSON allows and SSE does not cannot occur: they are escaped."""
    return _encode(value)


async def encoded(
    told: AsyncGenerator[Burst],
    encoder: Encoder,
    note: Callable[[Failure], None],
) -> AsyncGenerator[str]:
    """The lines of an answer, all of a burst as one text, with a heartbeat after each silence. Errors end it
    in the protocol's way; ``note`` is told of them, while the error is being handled.
    """
    try:
        yield "".join(encoder.opening())
        async with aclosing(told) as bursts:
            async for burst in bursts:
                if burst is None:
                    yield "".join(encoder.heartbeat())
                else:
                    yield "".join([line for item in burst for line in encoder.encode(*item)])
        yield "".join(encoder.closing())
    except Exception as error:
        failure = failure_of(error)
        note(failure)
        yield "".join(encoder.broken(failure))


class LineResponse(Response):
    """Sends lines as they come. Ends them, and so the work behind them, when the client has gone, or has
    taken nothing for ``send_s``.
    """

    def __init__(self, lines: AsyncGenerator[str], headers: Mapping[str, str], send_s: float) -> None:
        super().__init__()
        self._lines = lines
        self._head = SSE_HEADERS | dict(headers)
        self._send_s = send_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; an ASGI application."""
        headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in self._head.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await until_gone(receive, self._send_lines(send))

    async def _send_lines(self, send: Send) -> None:
        async with aclosing(self._lines) as lines:
            with Patience(self._send_s) as patience:
                async for line in lines:
                    if line:
                        body = {"type": "http.response.body", "body": line.encode(), "more_body": True}
                        patience.begin()
                        await send(body)
                        patience.end()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive, work: Awaitable[T]) -> T | None:
    """The result of work, which is cancelled when the client goes away; then None."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            return None
        return task.result()
    finally:
        for future in (task, watcher):
            future.cancel()
        await asyncio.wait([task, watcher])


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
