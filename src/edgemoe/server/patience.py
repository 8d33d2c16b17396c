"""A bound on how long each of many sends may take, without a timer of its own for each."""

from __future__ import annotations

import asyncio

from edgemoe.server.failures import Failure

# How often it is looked, in parts of the bound.
LOOKS = 4


class Patience:
    """Within it ``begin`` and ``end`` enclose what the current task waits for; used once.

    Raises:
        Failure: what was waited for took longer than ``most_s``, by up to a quarter.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._began_s: float | None = None
        self._is_over = False

    def begin(self) -> None:
        """Waiting begins."""
        self._began_s = self._loop.time()

    def end(self) -> None:
        """It is over in time."""
        self._began_s = None

    def __enter__(self) -> Patience:
        self._arm()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        self._task = None  # which refers to its error, that to its frames, and they to this
        if self._is_over and kind is not None and issubclass(kind, asyncio.CancelledError):
            message = f"the client took nothing for {self._most_s:.0f} s"
            raise Failure(408, message, "client_stalled") from None

    def _arm(self) -> None:
        self._timer = self._loop.call_later(self._most_s / LOOKS, self._look)

    def _look(self) -> None:
        if self._began_s is not None and self._loop.time() - self._began_s >= self._most_s:
            self._is_over = True
            assert self._task is not None, "used by a task"
            self._task.cancel()
        else:
            self._arm()
