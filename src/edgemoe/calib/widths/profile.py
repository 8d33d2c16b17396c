"""A profile: a folder with all that is measured of a checkpoint on a text, from which plans are made.

    profile.json       the calibration windows, and how they were fed
    bf16, t2, ... q8   the checkpoint at every width (ladder.py); the quantised ones rounded for the trace
    trace              what the calibration windows feed the experts: also for `convert --trace`
    probes             the same of other windows, on which errors are measured
    measured.jsonl     what was measured so far (sensitivity.py)

Every step is skipped where its result is there, so a killed profile goes on, and a second plan costs little.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import xxhash

from edgemoe.calib.trace import read_trace, record_trace
from edgemoe.calib.widths.inputs import TraceInputs
from edgemoe.calib.widths.ladder import REFERENCE, UNCHANGED, UNIFORM, WIDTHS, Ladder, Widths, refuse_foreign
from edgemoe.calib.widths.measurements import Measurements
from edgemoe.calib.widths.quality import Quality, States, compare
from edgemoe.calib.widths.replay import Replay
from edgemoe.calib.widths.sensitivity import measure_alone, measure_layers, measure_outputs
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.machine import resident_bytes
from edgemoe.engine.memory import default_budget
from edgemoe.errors import BudgetError, RequestError
from edgemoe.json_object import read_json_object
from edgemoe.quant import ExpertFormats, ExpertInputs
from edgemoe.store import Store
from edgemoe.store.durable import lock_folder, replace_file
from edgemoe.units import ceil_size, format_size

__all__ = ["MEASURED", "REFERENCE", "TRACE", "Profile", "ProfileOptions", "Steps", "Window", "read_facts"]

FACTS, TRACE, PROBES, MEASURED = "profile.json", "trace", "probes", "measured.jsonl"
# One calibration window in this many is not rounded for: errors on what was rounded for are too small.
PROBE_STRIDE = 4
MAX_PROBES = 12
MIN_WINDOWS = 4

Window = Sequence[int]


class Steps(Protocol):
    """Shows progress: a context manager for each step gives the function to tell of it."""

    def __call__(self, description: str, unit: str) -> Any:
        """A context manager that yields ``advance(done, total)``."""
        ...


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
        steps: Steps,
        options: ProfileOptions,
    ) -> None:
        """``find_windows`` gives the calibration text once the tokenizer's folder is known.

        Raises:
            CheckpointError: the checkpoint is damaged or not supported.
            ConversionError: the disk is full, or another process works on the profile.
            RequestError: the text is too short, or the folder holds something else.
        """
        refuse_foreign(folder, source)  # before the lock, which is a file in it
        self._lock = lock_folder(folder)
        self.folder, self.options = folder, options
        self.steps = steps
        self._find_windows = find_windows
        self.windows: list[list[int]] = []
        self._states: States = {}
        try:
            with steps("converting to every width", "widths") as advance:
                self.ladder = Ladder(source, folder, options.dense_format, advance, self._record)
            identity = f"{self.inputs.identity} {_digest(self.windows)} {' '.join(WIDTHS)}"
            self._measured = Measurements(folder / MEASURED, identity)
            self._budget_bytes = options.budget_bytes or default_budget()[0]
            self.reference: Engine = self._load_reference()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._measured.__exit__()
        self.reference.experts.close()
        self.ladder.__exit__()
        os.close(self._lock)

    @property
    def inputs(self) -> ExpertInputs:
        """What the experts are rounded for."""
        assert self.ladder.inputs is not None
        return self.ladder.inputs

    @property
    def probes(self) -> list[list[int]]:
        """Windows that errors are measured on."""
        return self.windows[::PROBE_STRIDE][:MAX_PROBES]

    @property
    def found(self) -> dict[str, float]:
        """All that was measured, by name."""
        return self._measured.values

    def load_beside(self, widths: Widths, default: ExpertFormats = UNCHANGED) -> Engine:
        """The model at any widths, with what the reference leaves of the budget; close ``engine.experts``."""
        held = sum(item.num_bytes for item in self.reference.memory.items)
        return self.ladder.load(widths, self.options.window, self._budget_bytes, default, held)

    def _load_reference(self) -> Engine:
        """The model untouched, with half of the memory: another form of it will run beside it.

        Raises:
            BudgetError: the budget is too small for two.
        """
        taken = resident_bytes()
        half = taken + (self._budget_bytes - taken) // 2
        try:
            return self.ladder.load({}, self.options.window, half)
        except BudgetError as error:
            smallest = 2 * error.smallest_num_bytes - taken
            raise BudgetError(
                f"{format_size(self._budget_bytes)} cannot calibrate this model, as two forms of it run side"
                f" by side; the smallest budget that works is {ceil_size(smallest)}",
                smallest_num_bytes=smallest,
            ) from error

    def measure(self, widths: Widths, windows: Sequence[Window]) -> Quality:
        """Quality of any widths."""
        engine = self.load_beside(widths)
        try:
            return compare(self.reference, engine, windows, self._states)
        finally:
            engine.experts.close()

    def find_fast(self) -> None:
        """Measure outputs and layers: some products for each expert, a run over the probes for each layer."""
        with self.steps("comparing outputs", "experts") as advance:
            measure_outputs(read_trace(self.folder / PROBES), self.ladder, self._measured, advance)
        with self.steps("weighing layers", "layers") as advance:
            measure_layers(
                self.ladder, self.reference, self.load_beside, self.probes, self._measured, advance
            )

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
        upper = UNIFORM[-1]
        engine = self.load_beside({}, upper)
        states = self.folder / "states.npy"
        try:
            replay = Replay(self.ladder, engine, upper, self.probes, states)
            with self.steps("measuring every expert alone", "experts") as advance:
                measure_alone(self.ladder, replay, self._measured, advance)
        finally:
            engine.experts.close()
            states.unlink(missing_ok=True)

    def _record(self, store: Store) -> ExpertInputs:
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
        return TraceInputs(read_trace(self.folder / TRACE))

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
