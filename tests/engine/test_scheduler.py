"""The line for the model: one at a time, in the order of asking, and a way out for all who wait."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from edgemoe.engine.batch import Wish
from edgemoe.engine.scheduler import Cancelled, Job, Scheduler
from edgemoe.errors import RequestError

PATIENCE_S = 20  # how long a thread that does not come is waited for: long, and only where a test fails


def start(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def join(threads):
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def wait_in_line(scheduler, count):
    """Until so many wait for their turn."""
    deadline = threading.Event()
    for _ in range(2000):
        if len(scheduler._line) >= count:
            return
        deadline.wait(0.01)
    raise AssertionError("they do not queue")


def test_turns_come_in_the_order_of_asking_and_one_at_a_time():
    scheduler, order, inside = Scheduler(), [], []

    def ask(name):
        with scheduler.turn():
            inside.append(name)
            assert len(inside) == 1
            order.append(name)
            inside.pop()

    threads = []
    with scheduler.turn():
        for i in range(5):
            threads.append(start(ask, i))
            wait_in_line(scheduler, i + 1)
    join(threads)
    assert order == [0, 1, 2, 3, 4]


def test_a_thread_that_has_the_turn_may_ask_again_and_keeps_it():
    scheduler = Scheduler()
    with scheduler.turn():
        with scheduler.turn():
            pass
        waiting = start(lambda: scheduler.turn().__enter__())
        wait_in_line(scheduler, 1)
        assert waiting.is_alive()
    join([waiting])


def test_an_error_in_a_step_lets_the_next_one_in():
    scheduler = Scheduler()
    with pytest.raises(ZeroDivisionError), scheduler.turn():
        raise ZeroDivisionError
    with scheduler.turn():
        pass


def test_who_is_cancelled_in_line_leaves_it_and_the_others_go_on():
    scheduler, flag, seen = Scheduler(), threading.Event(), []

    def ask(name, is_cancelled):
        try:
            with scheduler.turn(is_cancelled):
                seen.append(name)
        except Cancelled:
            seen.append("cancelled")

    with scheduler.turn():
        threads = [start(ask, "first", flag.is_set)]
        wait_in_line(scheduler, 1)
        threads.append(start(ask, "second", lambda: False))
        wait_in_line(scheduler, 2)
        flag.set()
        scheduler.wake()
        threads[0].join(PATIENCE_S)
        assert seen == ["cancelled"]
    join(threads)
    assert seen == ["cancelled", "second"]


def test_closing_waits_for_the_step_and_turns_the_others_away():
    scheduler, errors, is_inside, may_end = Scheduler(), [], threading.Event(), threading.Event()

    def step():
        with scheduler.turn():
            is_inside.set()
            may_end.wait(PATIENCE_S)

    def wait():
        with pytest.raises(RequestError, match="the model is closed") as caught, scheduler.turn():
            pass
        errors.append(caught.value)

    running = start(step)
    assert is_inside.wait(PATIENCE_S)
    waiting = start(wait)
    wait_in_line(scheduler, 1)
    closing = start(scheduler.close)
    join([waiting])
    assert closing.is_alive(), "a step was running"
    may_end.set()
    join([running, closing])
    assert len(errors) == 1
    with pytest.raises(RequestError, match="the model is closed"), scheduler.turn():
        pass


class Together:
    """Makes one step of two jobs; then of whatever waits."""

    def __init__(self):
        self.made, self.num_wanted = [], 2

    def gathering_s(self, waiting):
        return 0.0 if len(waiting) >= self.num_wanted else PATIENCE_S

    def choose(self, waiting):
        self.num_wanted = 1
        return list(waiting)

    def make(self, jobs):
        for job in jobs:
            self.made.append(job)
            job.is_done = True


class InterruptedLine(deque):
    """Ctrl-C as one of those that were chosen leaves the line, and again as it is put back."""

    num_left = 2

    def remove(self, job):
        super().remove(job)
        self._interrupt()

    def appendleft(self, job):
        super().appendleft(job)
        self._interrupt()

    def _interrupt(self):
        if self.num_left:
            self.num_left -= 1
            raise KeyboardInterrupt


def test_ctrl_c_between_the_line_and_the_step_loses_nobody():
    scheduler, maker, errors = Scheduler(), Together(), []
    scheduler._line = InterruptedLine()
    jobs = [Job(Wish(1, True), lambda: False) for _ in range(2)]

    def run(job):
        try:
            scheduler.run(job, maker)
        except KeyboardInterrupt:
            errors.append(job)

    join([start(run, job) for job in jobs])
    ((interrupted,), other) = errors, next(job for job in jobs if job not in errors)
    assert maker.made == [other]
    assert not interrupted.is_done
    assert not scheduler._line
    with scheduler.turn():
        pass
