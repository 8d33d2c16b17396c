"""One thread of the process on which requests to far storage run, any number at a time.

``run`` waits for a coroutine and lets Ctrl-C through at once: what it waited for is cancelled. ``start`` does
not wait. A child process gets a thread of its own when it first needs one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, cast

_T = TypeVar("_T")
_END_S = 2.0  # that the end of the process may take for requests to be let go


class _Loop:
    """An event loop on a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.kept: dict[str, tuple[Any, Callable[[Any], Awaitable[None]]]] = {}
        self._thread = threading.Thread(target=self._work, name="edgemoe-network", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel what runs and end the thread."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._cancel)
        self._thread.join(_END_S)

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.call_soon(self.loop.stop)

    def _work(self) -> None:
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            if left:
                self.loop.run_until_complete(asyncio.wait(left, timeout=_END_S))
            for thing, end in self.kept.values():
                self.loop.run_until_complete(end(thing))
        finally:
            self.loop.close()


_lock = threading.Lock()
_current: _Loop | None = None


def start(work: Coroutine[Any, Any, _T]) -> Future[_T]:
    """Begin a coroutine; cancelling the future cancels it."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


def keep(name: str, make: Callable[[], _T], end: Callable[[_T], Awaitable[None]]) -> _T:
    """Something that lives as long as the thread, such as open connections; made when first asked for.

    Called on that thread only.
    """
    assert _current is not None
    if name not in _current.kept:
        _current.kept[name] = make(), end
    return cast(_T, _current.kept[name][0])


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns, or raises."""
    future = start(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _loop() -> asyncio.AbstractEventLoop:
    global _current
    with _lock:
        if _current is None:
            _current = _Loop()
            atexit.register(_current.close)
        return _current.loop


def _in_child() -> None:
    """The thread belongs to the parent, and so may the lock."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_in_child)
