"""A profile: a folder with all that is measured of a checkpoint on a text, from which plans are made.

    profile.json       the calibration windows, and how they were fed
    bf16, t2, ... q8   the checkpoint at every width (ladder.py); the quantised ones rounded for the trace
    trace              what the calibration windows feed the experts: also for `convert --trace`
    probes             the same of other windows, on which errors are measured
    measured.jsonl     what was measured so far (sensitivity.py)
    items              work items that are done, until their stage is: then measured.jsonl has them (work.py)
    scratch            files of the processes that are working

Every step is skipped where its result is there, so a killed profile goes on, and a second plan costs little.
Where the work runs is an executor's to say; all of its workers read and write this folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from edgemoe.calib.widths.calibration import MEASURED, Calibration, ProfileOptions, Window, probes_of
from edgemoe.calib.widths.ladder import WIDTHS, Ladder, Widths, build_ladder, refuse_foreign
from edgemoe.calib.widths.measurements import Measurements
from edgemoe.calib.widths.quality import Quality
from edgemoe.calib.widths.work import (
    ITEMS,
    Measurement,
    Windows,
    alone_items,
    enter,
    layer_items,
    output_items,
    plan_items,
    quality_of_items,
    run_measurements,
)
from edgemoe.calib.widths.workbench import SCRATCH, Job, close_workbench, open_workbench
from edgemoe.engine.budget import default_budget
from edgemoe.engine.loading import Engine
from edgemoe.errors import RequestError
from edgemoe.executors import Executor, Here, end_earlier_workers
from edgemoe.progress import Progress, ShowSteps
from edgemoe.quant import ExpertInputs
from edgemoe.store.durable import lock_folder


@dataclass(frozen=True)
class _Parts:
    """What the folder of a profile holds; ``lock`` is an open file."""

    ladder: Ladder
    inputs: ExpertInputs
    windows: list[list[int]]
    measured: Measurements
    lock: int


class Profile:
    """One folder. Close it, best by ``with``."""

    def __init__(
        self, folder: Path, parts: _Parts, options: ProfileOptions, steps: ShowSteps, executor: Executor
    ) -> None:
        self.folder, self.options, self.steps = folder, options, steps
        self.ladder, self.inputs, self.windows = parts.ladder, parts.inputs, parts.windows
        self._measured, self._lock = parts.measured, parts.lock
        identity = parts.measured.identity
        budget_bytes = options.budget_bytes or default_budget()[0]
        self._job = Job(folder.absolute(), options.window, budget_bytes, identity)
        self._items = _own_items(folder, identity)
        self._executor = executor

    @classmethod
    def make(
        cls,
        source: Path,
        folder: Path,
        find_windows: Callable[[Path], Sequence[Window]],
        steps: ShowSteps,
        options: ProfileOptions,
        executor: Executor | None = None,
    ) -> Profile:
        """Convert the model to every width and trace the text, as far as an earlier run has not.

        ``find_windows`` gives the calibration text once the tokenizer's folder is known.

        Raises:
            BudgetError: the budget is too small for two forms of the model; with an executor it shows later.
            CheckpointError: the checkpoint is damaged or not supported.
            ConversionError: the disk is full, or another process works on the profile.
            RequestError: the text is too short, the folder holds something else, or the executor's library
                is missing.
            WorkerError: the executor cannot work, or a worker failed.
        """
        executor = executor or Here()
        executor.check()
        refuse_foreign(folder, source)  # before the lock, which is a file in it
        lock = lock_folder(folder)
        try:
            end_earlier_workers(folder)
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
            calibration = Calibration(folder, options, find_windows)
            parts = _prepare(source, calibration, steps, executor, lock)
            made = cls(folder, parts, options, steps, executor)
            if isinstance(executor, Here):
                _ = made.reference  # refused now rather than after the first stage
        except BaseException:
            close_workbench()
            os.close(lock)
            raise
        return made

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._measured.__exit__()
        close_workbench()
        self.ladder.__exit__()
        shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)
        os.close(self._lock)

    @property
    def reference(self) -> Engine:
        """The model untouched, in this process. Anything that is measured here may replace it.

        Raises:
            BudgetError: the budget is too small for two forms of the model.
        """
        return open_workbench(self._job).reference

    @property
    def probes(self) -> list[list[int]]:
        """Windows that errors are measured on."""
        return probes_of(self.windows)

    @property
    def found(self) -> dict[str, float]:
        """All that was measured, by name."""
        return self._measured.values

    def measure(self, widths: Widths, windows: Sequence[Window]) -> Quality:
        """Quality of any widths."""
        return self.measure_all([widths], windows)[0]

    def measure_all(
        self, plans: Sequence[Widths], windows: Sequence[Window], progress: Progress | None = None
    ) -> list[Quality]:
        """Quality of several plans on the same windows."""
        items = plan_items(self._items, plans, _as_tuples(windows))
        run_measurements(self._executor, self._job, [i for plan in items for i in plan], progress)
        return [quality_of_items(plan) for plan in items]

    def find_fast(self) -> None:
        """Measure outputs and layers: some products for each expert, a run over the probes for each layer."""
        keys, probes = self.ladder.keys, _as_tuples(self.probes)
        items = [*output_items(self._items, keys), *layer_items(self._items, keys, probes)]
        self._run("comparing outputs, weighing layers", items)

    def find_exact(self) -> None:
        """Measure every expert alone at the lowest width, all others at the highest.

        Raises:
            RequestError: the model has an encoder.
        """
        if self.ladder.spec.has_encoder:
            raise RequestError(
                f"experts of {self.ladder.spec.family} cannot be measured one by one, as the model has an"
                " encoder; use --method knapsack, or fast in a profile"
            )
        items = alone_items(self._items, self.ladder.keys, _as_tuples(self.probes))
        self._run("measuring every expert alone", items)

    def _run(self, description: str, items: Sequence[Measurement]) -> None:
        """A stage: those of its items whose numbers have not been entered."""
        missing = [item for item in items if not item.entries <= self.found.keys()]
        if not missing:
            return
        with self.steps(description, "work items") as advance:
            run_measurements(self._executor, self._job, missing, advance)
        enter(missing, self._measured)


def _prepare(
    source: Path, calibration: Calibration, steps: ShowSteps, executor: Executor, lock: int
) -> _Parts:
    folder, options = calibration.folder, calibration.options
    with steps("converting to every width", "widths") as advance:
        inputs = build_ladder(source, folder, options.dense_format, executor, advance, calibration.record)
    assert inputs is not None
    identity = f"{inputs.identity} {_digest(calibration.windows)} {' '.join(WIDTHS)}"
    measured = Measurements(folder / MEASURED, identity)
    ladder = Ladder(folder, folder / SCRATCH / "driver.mixed")
    return _Parts(ladder, inputs, calibration.windows, measured, lock)


def _digest(windows: Sequence[list[int]]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(windows).encode())


def _as_tuples(windows: Sequence[Window]) -> Windows:
    return tuple(tuple(window) for window in windows)


def _own_items(folder: Path, identity: str) -> Path:
    """Where the items of what is measured lie; those of anything else are removed."""
    own = folder.absolute() / ITEMS / xxhash.xxh3_64_hexdigest(identity.encode())
    own.mkdir(parents=True, exist_ok=True)
    for other in own.parent.iterdir():
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own
