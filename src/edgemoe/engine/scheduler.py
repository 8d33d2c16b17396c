"""Whose turn it is: any number of threads and open texts share one model, which makes one step at a time.

Texts are served in the order in which they asked. A turn lasts one step (a chunk of a prompt, or a token), so
nobody waits for a whole answer, and a text that nobody asks to go on takes no turn at all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgemoe.engine import forks
from edgemoe.errors import RequestError


class Cancelled(Exception):
    """A text was cancelled while it waited, or before its next step. Never leaves the engine."""


class Scheduler:
    """A fair line for the model, and for whatever else has to be waited for. Thread-safe."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())  # held for moments, never during a step
        self._line: deque[object] = deque()
        self._owner: int | None = None  # the thread whose step is running
        self._is_closed = False
        self.is_forked = False
        forks.watch(self)

    @contextmanager
    def turn(self, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Have the model to oneself for one step. A thread that has it may ask again.

        Raises:
            Cancelled: it is cancelled before its turn has come.
            RequestError: the model is closed, or belongs to the parent of this process.
        """
        self.check()
        me = threading.get_ident()
        if self._owner == me:
            yield
            return
        ticket = object()
        try:
            with self.changed:
                self._line.append(ticket)
                while self._owner is not None or self._line[0] is not ticket:
                    self.wait(is_cancelled)
                if is_cancelled():
                    raise Cancelled
                self.check()
                self._owner = me
            yield
        finally:
            with self.changed:
                if self._owner == me:
                    self._owner = None
                if ticket in self._line:
                    self._line.remove(ticket)
                self.changed.notify_all()

    def wait(self, is_cancelled: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait, with ``changed`` held, until something may have changed. Raises as ``turn``."""
        self.check()
        if is_cancelled():
            raise Cancelled
        self.changed.wait(timeout_s)
        self.check()

    def wake(self) -> None:
        """Let all who wait look again."""
        with self.changed:
            self.changed.notify_all()

    def check(self) -> None:
        """Refuse to go on where there is no model to go on with.

        Raises:
            RequestError: it is closed, or belongs to the parent of this process.
        """
        if self.is_forked:
            raise RequestError(
                "this model was loaded before the process forked, and stays with the parent: load it in the"
                " child, or start the child by 'spawn'"
            )
        if self._is_closed:
            raise RequestError("the model is closed; load it again")

    def close(self) -> None:
        """Let no step begin any more, and wait for the one that is running."""
        if self.is_forked:
            return
        with self.changed:
            self._is_closed = True
            self.changed.notify_all()
            while self._owner not in (None, threading.get_ident()):
                self.changed.wait()

    def freeze(self) -> None:
        """The interpreter ends: keep every other thread waiting, and for ever, from its next step on.

        A daemon thread that came back from compiled code once the interpreter is gone would end the process.
        """
        if self._is_closed or self.is_forked:
            return
        with self.changed:
            self._line.appendleft(self)
            while self._owner not in (None, threading.get_ident()):
                self.changed.wait()
            self._owner = threading.get_ident()

    def abandon(self) -> None:
        """See Watched: the model's threads and its ring have stayed with the parent."""
        self.is_forked = True
        self.changed = threading.Condition(threading.Lock())  # another thread may have held the old one
