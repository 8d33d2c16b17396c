"""Sending an answer while it is made: server-sent events, heartbeats, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgemoe.server.answers import Told
from edgemoe.server.events import Event
from edgemoe.server.failures import Failure, failure_of

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

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


def data(value: Mapping[str, Any]) -> str:
    """One event without a name."""
    return f"data: {dump(value)}\n\n"


def named(value: Mapping[str, Any]) -> str:
    """One event under its type's name; Anthropic's clients skip events without one."""
    return f"event: {value['type']}\ndata: {dump(value)}\n\n"


def dump(value: Any) -> str:
    """Compact JSON. Line separators that JSON allows and SSE does not cannot occur: they are escaped."""
    return json.dumps(value, separators=(",", ":"))


async def encoded(
    told: AsyncGenerator[Told],
    encoder: Encoder,
    every_s: float,
    sleep: Sleep,
    note: Callable[[Failure], None],
) -> AsyncGenerator[str]:
    """The lines of an answer, with a heartbeat after each silence. Errors end it in the protocol's way;
    ``note`` is told of them, while the error is being handled.
    """
    try:
        for line in encoder.opening():
            yield line
        async with aclosing(with_heartbeats(told, every_s, sleep)) as items:
            async for item in items:
                lines = encoder.heartbeat() if item is None else encoder.encode(*item)
                for line in lines:
                    yield line
        for line in encoder.closing():
            yield line
    except Exception as error:
        failure = failure_of(error)
        note(failure)
        for line in encoder.broken(failure):
            yield line


async def with_heartbeats(items: AsyncGenerator[T], every_s: float, sleep: Sleep) -> AsyncGenerator[T | None]:
    """Items as they come, and None whenever ``every_s`` have passed since the last of either."""
    pending = asyncio.ensure_future(_next(items))
    timer: asyncio.Future[None] | None = None
    try:
        while True:
            timer = asyncio.ensure_future(sleep(every_s))
            await asyncio.wait({pending, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not pending.done():
                yield None
                continue
            timer.cancel()
            if (found := pending.result()) is None:
                return
            yield found[0]
            pending = asyncio.ensure_future(_next(items))
    finally:
        if timer is not None:
            timer.cancel()
        pending.cancel()
        await asyncio.wait([pending])
        await items.aclose()


async def _next(items: AsyncGenerator[T]) -> tuple[T] | None:
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None


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
            async for line in lines:
                body = {"type": "http.response.body", "body": line.encode(), "more_body": True}
                with anyio.fail_after(self._send_s):
                    await send(body)
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
