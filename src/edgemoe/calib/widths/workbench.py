"""What a process keeps open of a profile while it computes work items: stores, and two forms of the model.

A worker's memory is that of one budget. It holds either the untouched model with half of it and a changed one
beside it, or a replay; never both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemoe.calib.trace import Trace, read_trace
from edgemoe.calib.widths.ladder import UNCHANGED, UNIFORM, Ladder, Widths
from edgemoe.calib.widths.quality import Floats, States, losses_of
from edgemoe.calib.widths.replay import Replay
from edgemoe.engine.loading import Engine
from edgemoe.engine.machine import resident_bytes
from edgemoe.errors import BudgetError
from edgemoe.quant import ExpertFormats
from edgemoe.units import ceil_size, format_size

PROBES = "probes"
SCRATCH = "scratch"
# The share of the budget for last states of the untouched model, which several items need.
_STATES_SHARE = 1 / 16


@dataclass(frozen=True)
class Job:
    """A profile as any process opens it. ``identity``: what is measured, of which model on which text."""

    folder: Path
    window: int
    budget_bytes: int
    identity: str


class Workbench:
    """The models of one profile, opened as they are needed. Close it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        scratch = job.folder / SCRATCH / f"{socket.gethostname()}-{os.getpid()}"
        self.ladder = Ladder(job.folder, scratch.with_suffix(".mixed"))
        self._states_file = scratch.with_suffix(".states.npy")
        self._trace: Trace | None = None
        self._states: States = {}
        self._reference: Engine | None = None
        self._changed: tuple[Widths, ExpertFormats, Engine] | None = None
        self._replay: tuple[Sequence[Sequence[int]], Engine, Replay] | None = None

    def close(self) -> None:
        """Let go of everything."""
        self._close_pair()
        self._close_replay()
        self.ladder.__exit__()

    @property
    def probes(self) -> Trace:
        """What the probe windows feed the experts."""
        if self._trace is None:
            self._trace = read_trace(self.job.folder / PROBES)
        return self._trace

    @property
    def reference(self) -> Engine:
        """The model untouched, with half of the memory: another form of it will run beside it.

        Raises:
            BudgetError: the budget is too small for two.
        """
        if self._reference is None:
            self._close_replay()
            self._reference = self._with_half(lambda half: self.ladder.load({}, self.job.window, half))
        return self._reference

    def changed(self, widths: Widths, default: ExpertFormats = UNCHANGED) -> Engine:
        """The model at any widths, with what the reference leaves of the budget; it stays until the next."""
        if self._changed is not None and self._changed[:2] == (widths, default):
            return self._changed[2]
        held = sum(item.num_bytes for item in self.reference.memory.items) + self._most_states
        self._close_changed()
        engine = self.ladder.load(widths, self.job.window, self.job.budget_bytes, default, held)
        self._changed = (dict(widths), default, engine)
        return engine

    def losses(self, widths: Widths, windows: Sequence[Sequence[int]]) -> list[Floats]:
        """What ``losses_of`` finds of these widths beside the untouched model."""
        changed = self.changed(widths)
        taken = sum(states.nbytes for states in self._states.values())
        if taken > self._most_states:
            self._states.clear()
        return losses_of(self.reference, changed, windows, self._states)

    def replay(self, windows: Sequence[Sequence[int]]) -> Replay:
        """The windows through the model at the highest width; it stays until other windows come."""
        if self._replay is None or self._replay[0] != windows:
            self._close_pair()
            self._close_replay()
            upper = UNIFORM[-1]
            load = self.ladder.load
            engine = self._with_half(lambda half: load({}, self.job.window, half, upper))
            self._states_file.parent.mkdir(exist_ok=True)
            try:
                replay = Replay(self.ladder, engine, upper, windows, self._states_file)
            except BaseException:
                engine.experts.close()
                raise
            self._replay = (windows, engine, replay)
        return self._replay[2]

    @property
    def _most_states(self) -> int:
        return int(_STATES_SHARE * self.job.budget_bytes)

    def _with_half(self, load: Callable[[int], Engine]) -> Engine:
        taken, budget = resident_bytes(), self.job.budget_bytes
        try:
            return load(taken + (budget - taken) // 2)
        except BudgetError as error:
            smallest = 2 * error.smallest_num_bytes - taken
            raise BudgetError(
                f"{format_size(budget)} cannot calibrate this model, as two forms of it run side"
                f" by side; the smallest budget that works is {ceil_size(smallest)}",
                smallest_num_bytes=smallest,
            ) from error

    def _close_pair(self) -> None:
        self._close_changed()
        if self._reference is not None:
            self._reference.experts.close()
        self._reference = None
        self._states.clear()

    def _close_changed(self) -> None:
        if self._changed is not None:
            self._changed[2].experts.close()
        self._changed = None

    def _close_replay(self) -> None:
        if self._replay is not None:
            self._replay[1].experts.close()
            self._states_file.unlink(missing_ok=True)
        self._replay = None


# What this process has open, for the next item of the same profile.
_open: list[Workbench] = []


def open_workbench(job: Job) -> Workbench:
    """The workbench of a profile in this process; that of another profile is closed."""
    if not _open or _open[0].job != job:
        close_workbench()
        _open.append(Workbench(job))
    return _open[0]


def close_workbench() -> None:
    """Let go of whatever profile this process has open."""
    while _open:
        _open.pop().close()
