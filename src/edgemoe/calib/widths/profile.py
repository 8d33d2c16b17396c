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
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from edgemoe.calib.trace import TRACE_FILE, record_trace
from edgemoe.calib.widths.inputs import inputs_of
from edgemoe.calib.widths.ladder import REFERENCE, WIDTHS, Ladder, Widths, build_ladder, refuse_foreign
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
from edgemoe.calib.widths.workbench import PROBES, SCRATCH, Job, close_workbench, open_workbench
from edgemoe.convert.parts import FindInputs
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.memory import default_budget
from edgemoe.errors import RequestError
from edgemoe.executors import Executor, Here, end_earlier_workers
from edgemoe.json_object import read_json_object
from edgemoe.progress import Progress, ShowSteps
from edgemoe.quant import ExpertInputs
from edgemoe.store import Store
from edgemoe.store.durable import lock_folder, replace_file

__all__ = ["MEASURED", "REFERENCE", "TRACE", "Profile", "ProfileOptions", "Window", "read_facts"]

FACTS, TRACE, MEASURED = "profile.json", "trace", "measured.jsonl"
# One calibration window in this many is not rounded for: errors on what was rounded for are too small.
PROBE_STRIDE = 4
MAX_PROBES = 12
MIN_WINDOWS = 4

Window = Sequence[int]


@dataclass(frozen=True)
class ProfileOptions:
    """How a profile is made; ``window`` is in tokens."""

    window: int
    dense_format: str = "q8"
    budget_bytes: int | None = None


class Profile:
    """One folder. Close it, best by ``with``."""

    def __init__(
        self,
        source: Path,
        folder: Path,
        find_windows: Callable[[Path], Sequence[Window]],
        steps: ShowSteps,
        options: ProfileOptions,
        executor: Executor | None = None,
    ) -> None:
        """``find_windows`` gives the calibration text once the tokenizer's folder is known.

        Raises:
            BudgetError: the budget is too small for two forms of the model; with an executor it shows later.
            CheckpointError: the checkpoint is damaged or not supported.
            ConversionError: the disk is full, or another process works on the profile.
            RequestError: the text is too short, the folder holds something else, or the executor's library
                is missing.
            WorkerError: the executor cannot work, or a worker failed.
        """
        self._executor = executor or Here()
        self._executor.check()
        refuse_foreign(folder, source)  # before the lock, which is a file in it
        self._lock = lock_folder(folder)
        self.folder, self.options = folder, options
        self.steps = steps
        self._find_windows = find_windows
        self.windows: list[list[int]] = []
        try:
            end_earlier_workers(folder)
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
            with steps("converting to every width", "widths") as advance:
                inputs = build_ladder(
                    source, folder, options.dense_format, self._executor, advance, self._record
                )
            assert inputs is not None
            self.inputs: ExpertInputs = inputs
            self.ladder = Ladder(folder, folder / SCRATCH / "driver.mixed")
            identity = f"{self.inputs.identity} {_digest(self.windows)} {' '.join(WIDTHS)}"
            self._measured = Measurements(folder / MEASURED, identity)
            budget_bytes = options.budget_bytes or default_budget()[0]
            self._job = Job(folder.absolute(), options.window, budget_bytes, identity)
            self._items = _own_items(folder, identity)
            if isinstance(self._executor, Here):
                _ = self.reference  # refused now rather than after the first stage
        except BaseException:
            close_workbench()
            os.close(self._lock)
            raise

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
        return self.windows[::PROBE_STRIDE][:MAX_PROBES]

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

    def _record(self, store: Store) -> FindInputs:
        """Trace the windows on the unquantised store, unless that has been done."""
        self.windows = [list(window) for window in self._find_windows(store.path)]
        if len(self.windows) < MIN_WINDOWS:
            raise RequestError(
                f"the text gives {len(self.windows)} windows of {self.options.window} tokens to calibrate on;"
                f" {MIN_WINDOWS} are needed, give more text or a smaller --window"
            )
        facts = {"window": self.options.window, "dense": self.options.dense_format, "windows": self.windows}
        text = json.dumps(facts)
        path = self.folder / FACTS
        if not (path.exists() and path.read_text(encoding="utf-8") == text):
            if (self.folder / MEASURED).exists():
                raise RequestError(
                    f"{self.folder} holds what was measured on another text or with another --window;"
                    " choose another folder, or remove this one"
                )
            for name in (TRACE, PROBES):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            replace_file(path, text.encode())
        probes = self.probes
        rounded = [
            w for i, w in enumerate(self.windows) if i % PROBE_STRIDE or i >= PROBE_STRIDE * MAX_PROBES
        ]
        for name, windows in ((TRACE, rounded), (PROBES, probes)):
            if not (self.folder / name).exists():
                self._trace(store, windows, self.folder / name)
        folder = (self.folder / TRACE).absolute()
        return partial(inputs_of, folder, (folder / TRACE_FILE).stat().st_mtime_ns)

    def _trace(self, store: Store, windows: Sequence[Window], folder: Path) -> None:
        options = LoadOptions(self.options.budget_bytes, self.options.window, predictor="none")
        engine = load_engine(store, options)
        try:
            record_trace(engine, {str(i): window for i, window in enumerate(windows)}, folder)
        finally:
            engine.experts.close()


def read_facts(folder: Path) -> dict[str, Any]:
    """Window, dense format and calibration windows of a profile.

    Raises:
        RequestError: the folder is no profile.
    """
    try:
        facts = read_json_object(folder / FACTS)
        window, windows = facts["window"], facts["windows"]
        is_sound = type(window) is int and window > 0 and type(facts["dense"]) is str
        if not is_sound or not all(type(token) is int for row in windows for token in row):
            raise ValueError("its values are none of a profile")
    except OSError:
        raise RequestError(f"{folder} is no profile; make one with `edgemoe profile`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{folder / FACTS}: damaged ({error}); run `edgemoe profile` anew") from None
    return facts


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
