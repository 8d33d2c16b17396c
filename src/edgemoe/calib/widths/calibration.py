"""The calibration text of a profile: its windows, and what they feed each expert of the model untouched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgemoe.calib.trace import TRACE_FILE, record_trace
from edgemoe.calib.widths.inputs import inputs_of
from edgemoe.calib.widths.workbench import PROBES
from edgemoe.convert.parts import FindInputs
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import RequestError
from edgemoe.json_object import read_json_object
from edgemoe.store import Store
from edgemoe.store.durable import replace_file

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


class Calibration:
    """The windows of a profile, known once the tokenizer's folder is."""

    def __init__(
        self, folder: Path, options: ProfileOptions, find_windows: Callable[[Path], Sequence[Window]]
    ) -> None:
        self.folder, self.options, self._find_windows = folder, options, find_windows
        self.windows: list[list[int]] = []

    def record(self, store: Store) -> FindInputs:
        """Trace the windows on the unquantised store, unless that has been done.

        Raises:
            RequestError: the text is too short, or the folder holds what was measured on another.
        """
        self.windows = [list(window) for window in self._find_windows(store.path)]
        if len(self.windows) < MIN_WINDOWS:
            raise RequestError(
                f"the text gives {len(self.windows)} windows of {self.options.window} tokens to calibrate"
                f" on; {MIN_WINDOWS} are needed, give more text or a smaller --window"
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
        probes = probes_of(self.windows)
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


def probes_of(windows: Sequence[list[int]]) -> list[list[int]]:
    """Windows that errors are measured on."""
    return list(windows[::PROBE_STRIDE][:MAX_PROBES])


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
