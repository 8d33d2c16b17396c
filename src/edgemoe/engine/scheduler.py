"""Whose turn it is: any number of threads and open texts share one model, which makes one step at a time.

Texts are served in the order in which they asked. A step is a chunk of a prompt or a token, or several of
them together (see ``batch.py``), so nobody waits for a whole answer, and a text that nobody asks to go on
takes no part. There is no thread of the model's own: of those that wait, the first in the line makes the
step for all that are in it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from edgemoe.engine import forks
from edgemoe.engine.batch import Wish
from edgemoe.errors import RequestError


class Cancelled(Exception):
    """A text was cancelled while it waited, or before its next step. Never leaves the engine."""


class Job:
    """A text's part in a step."""

    def __init__(self, wish: Wish, is_cancelled: Callable[[], bool]) -> None:
        self.wish = wish
        self.asked_s = time.monotonic()
        self.is_cancelled = is_cancelled
        self.is_running = False
        self.is_done = False


class Maker(Protocol):
    """Makes steps."""

    def gathering_s(self, waiting: Sequence[Job]) -> float:
        """How long to wait for others before a step for some of these is made; called again meanwhile."""
        ...

    def choose(self, waiting: Sequence[Job]) -> list[Job]:
        """Those that the next step is for."""
        ...

    def make(self, jobs: Sequence[Job]) -> None:
        """The step. After an error all texts are as they were, but those whose jobs it has set done."""
        ...


class Scheduler:
    """A fair line for the model, and for whatever else has to be waited for. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held for moments, never during a step
        self._changed = threading.Condition(self.lock)
        self._line: deque[object] = deque()  # jobs, and tickets of those who want the model to themselves
        self._num_asleep = 0
        self._owner: int | None = None  # the thread whose step is running
        self._taken: list[Job] = []  # out of the line, for that step
        self._is_closed = False
        self.is_forked = False
        forks.watch(self)

    @property
    def is_mine(self) -> bool:
        """Whether this thread has the model now."""
        return self._owner == threading.get_ident()

    def run(self, job: Job, maker: Maker) -> None:
        """Wait until a step with this job has been made, or make it.

        Raises:
            Cancelled: it is cancelled before its turn has come.
            RequestError: the model is closed, or belongs to the parent of this process.
        """
        self.check()
        me = threading.get_ident()
        if self._owner == me:
            maker.make([job])
            return
        try:
            with self.lock:
                self._line.append(job)
                self.notify()
                jobs = self._begin(job, maker)
            while jobs:
                self._make(jobs, maker)
                if job.is_done:
                    return
                with self.lock:
                    jobs = self._begin(job, maker)
        except BaseException:
            self._withdraw(job)
            raise

    def _begin(self, job: Job, maker: Maker) -> list[Job]:
        """Wait for this job's turn, and a little for others, and take those of the next step out of the line.

        None where another thread's step has done it meanwhile.
        """
        while not job.is_done and (self._owner is not None or self._line[0] is not job):
            self.wait(job.is_cancelled)
        if job.is_done:
            return []
        if job.is_cancelled():
            raise Cancelled
        self._owner = threading.get_ident()
        waiting = self._waiting()
        while (seconds := maker.gathering_s(waiting)) > 0:
            self._sleep(seconds)
            self.check()
            waiting = self._waiting()
        self._taken = maker.choose(waiting)  # from here on an interrupted thread can put them back
        for chosen in self._taken:
            self._line.remove(chosen)
            chosen.is_running = True
        return self._taken

    def _withdraw(self, job: Job) -> None:
        """Take a job back whose thread has been interrupted, wherever that was."""
        try:
            self._take_back(job)
        except BaseException:  # who presses Ctrl-C twice interrupts this, too
            self._take_back(job)
            raise

    def _take_back(self, job: Job) -> None:
        with self.lock:
            if self._owner == threading.get_ident():
                self._end_step()
            while job.is_running:  # in another thread's step, which must not lose its text
                self._sleep()
            if job in self._line:
                self._line.remove(job)
            self.notify()

    def _end_step(self) -> None:
        """Put those of this thread's step that are not done back, and let the next one begin.

        It may be interrupted anywhere, and called again.
        """
        for job in reversed(self._taken):
            job.is_running = False
            if not job.is_done and job not in self._line:
                self._line.appendleft(job)
        self._taken = []
        self._release(threading.get_ident())

    def _waiting(self) -> list[Job]:
        """The jobs at the head of the line, as far as the first who wants the model alone."""
        jobs = []
        for job in self._line:
            if not isinstance(job, Job):
                break
            jobs.append(job)
        return jobs

    def _make(self, jobs: list[Job], maker: Maker) -> None:
        """Make a step. After an error in one of several texts each gets one of its own: it may be of one."""
        try:
            maker.make(jobs)
        except Exception:
            if len(jobs) == 1:
                raise
        finally:
            with self.lock:
                for job in jobs:
                    if not job.is_done:
                        job.wish = Wish(job.wish.num_rows, job.wish.is_answer, is_alone=True)
                self._end_step()

    @contextmanager
    def turn(self, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Have the model to oneself. A thread that has it may ask again. Raises as ``run``."""
        self.check()
        me = threading.get_ident()
        if self._owner == me:
            yield
            return
        ticket = object()
        try:
            with self.lock:
                self._line.append(ticket)
                while self._owner is not None or self._line[0] is not ticket:
                    self.wait(is_cancelled)
                if is_cancelled():
                    raise Cancelled
                self.check()
                self._line.popleft()
                self._owner = me
            yield
        finally:
            with self.lock:
                self._release(me)
                if ticket in self._line:
                    self._line.remove(ticket)
                self.notify()

    def _release(self, thread: int) -> None:
        if self._owner == thread:
            self._owner = None
            self.notify()

    def wait(self, is_cancelled: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait, with ``lock`` held, until something may have changed. Raises as ``run``."""
        self.check()
        if is_cancelled():
            raise Cancelled
        self._sleep(timeout_s)
        self.check()

    def notify(self) -> None:
        """With ``lock`` held: let all who wait look again. Without them it costs nothing."""
        if self._num_asleep:
            self._changed.notify_all()

    def _sleep(self, timeout_s: float | None = None) -> None:
        self._num_asleep += 1
        try:
            self._changed.wait(timeout_s)
        finally:
            self._num_asleep -= 1

    def wake(self) -> None:
        """Let all who wait look again."""
        with self.lock:
            self.notify()

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
        with self.lock:
            self._is_closed = True
            self.notify()
            while self._owner not in (None, threading.get_ident()):
                self._sleep()

    def freeze(self) -> None:
        """The interpreter ends: keep every other thread waiting, and for ever, from its next step on.

        A daemon thread that came back from compiled code once the interpreter is gone would end the process.
        """
        if self._is_closed or self.is_forked:
            return
        with self.lock:
            self._line.appendleft(self)
            while self._owner not in (None, threading.get_ident()):
                self._sleep()
            self._owner = threading.get_ident()

    def abandon(self) -> None:
        """See Watched: the model's threads and its ring have stayed with the parent."""
        self.is_forked = True
        self.lock = threading.Lock()  # another thread may have held the old one
        self._changed = threading.Condition(self.lock)
