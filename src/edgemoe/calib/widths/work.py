"""Measuring as work items: some experts or one layer or one plan, on some windows of text, each in one file.

What an item finds is a few numbers, and sums of losses over pieces of text. Pieces are merged in the order of
the text before anything is computed of them, so the result has the same bits whoever computed which part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from edgemoe.calib.widths.ladder import Widths
from edgemoe.calib.widths.measurements import Measurements
from edgemoe.calib.widths.quality import Floats, Quality, quality_of
from edgemoe.calib.widths.sensitivity import LOWEST, expert_name, output_numbers
from edgemoe.calib.widths.workbench import Job, Workbench, open_workbench
from edgemoe.executors import Executor, run_items
from edgemoe.json_object import read_json_object
from edgemoe.progress import Progress
from edgemoe.store import ExpertKey
from edgemoe.store.durable import replace_file

# Of one item. A large expert takes about a second at all widths, a window some seconds.
EXPERTS_OF_ITEM, WINDOWS_OF_ITEM = 8, 4
ITEMS = "items"

Windows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Found:
    """What an item finds: numbers by name, which add up where several items find one, and pieces by name."""

    numbers: Mapping[str, float]
    pieces: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One item: see the functions of ``_KINDS`` for what each kind measures."""

    kind: str
    name: str
    folder: Path
    keys: tuple[ExpertKey, ...] = ()
    windows: Windows = ()
    widths: Widths = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """See Item."""
        return self.folder / f"{self.name.replace(' ', '-')}.json"

    @property
    def entries(self) -> set[str]:
        """Numbers that show that it has been entered: one for the layer, or for each expert."""
        if self.kind == "layer":
            return {f"layer {self.keys[0][0]}"}
        name = "peak" if self.kind == "outputs" else self.kind
        return {f"{name} {expert_name(key)}" for key in self.keys}

    def read(self) -> Found:
        """What was found."""
        record = read_json_object(self.output)
        return Found(record["numbers"], record["pieces"])


def output_items(folder: Path, keys: Sequence[ExpertKey]) -> list[Measurement]:
    """Outputs of some experts of one layer each."""
    return [
        Measurement("outputs", f"outputs {_span(group)}", folder, group)
        for group in _groups(keys, EXPERTS_OF_ITEM)
    ]


def layer_items(folder: Path, keys: Sequence[ExpertKey], windows: Windows) -> list[Measurement]:
    """All experts of one layer at the lowest width, on a shard of the text each."""
    layers = _groups(keys, len(keys))
    return [
        Measurement("layer", f"layer {group[0][0]} shard {number}", folder, group, shard)
        for number, shard in enumerate(_shards(windows))
        for group in layers
    ]


def alone_items(folder: Path, keys: Sequence[ExpertKey], windows: Windows) -> list[Measurement]:
    """Some experts of one layer, each alone at the lowest width, on a shard of the text."""
    return [
        Measurement("alone", f"alone {_span(group)} shard {number}", folder, group, shard)
        for number, shard in enumerate(_shards(windows))
        for group in _groups(keys, EXPERTS_OF_ITEM)
    ]


def plan_items(folder: Path, plans: Sequence[Widths], windows: Windows) -> list[list[Measurement]]:
    """The items of each of several plans, one for each shard of the text."""
    text = xxhash.xxh3_64_hexdigest(json.dumps(windows).encode())[:8]
    return [
        [
            Measurement("plan", f"plan {_digest(plan)} text {text} shard {number}", folder, (), shard, plan)
            for number, shard in enumerate(_shards(windows))
        ]
        for plan in plans
    ]


def run_measurements(
    executor: Executor, job: Job, items: Sequence[Measurement], progress: Progress | None = None
) -> None:
    """Have the items computed whose files are not there.

    Raises:
        WorkerError: as ``run_items``.
    """
    for folder in {item.folder for item in items}:
        folder.mkdir(parents=True, exist_ok=True)
    run_items(executor, partial(measure, job), items, job.folder, progress)


def measure(job: Job, item: Measurement) -> None:
    """Compute one item in this process, and write its file."""
    found = _KINDS[item.kind](open_workbench(job), item)
    replace_file(item.output, json.dumps({"numbers": found.numbers, "pieces": found.pieces}).encode())


def quality_of_items(items: Iterable[Measurement]) -> Quality:
    """The quality of a plan, from its items in the order of the text."""
    return quality_of([np.array(piece) for item in items for piece in item.read().pieces["plan"]])


def enter(items: Sequence[Measurement], found: Measurements) -> None:
    """Put together what finished items of one kind have found, enter it, and remove their files."""
    numbers: dict[str, float] = {}
    pieces: dict[str, list[Floats]] = {}
    for item in items:
        part = item.read()
        for name, value in part.numbers.items():
            numbers[name] = numbers.get(name, 0.0) + value
        for name, rows in part.pieces.items():
            pieces.setdefault(name, []).extend(np.array(row) for row in rows)
    divergences = {name: quality_of(rows).mean_divergence for name, rows in pieces.items()}
    found.add({**numbers, **divergences})
    for item in items:
        item.output.unlink()


def _outputs(workbench: Workbench, item: Measurement) -> Found:
    """Errors of each expert's outputs at every width."""
    numbers: dict[str, float] = {}
    for key in item.keys:
        started = time.monotonic()
        numbers.update(output_numbers(workbench.probes, workbench.ladder, key))
        numbers[f"fast_s {expert_name(key)}"] = time.monotonic() - started
    return Found(numbers)


def _layer(workbench: Workbench, item: Measurement) -> Found:
    """Losses with all experts of a layer at the lowest width, all else untouched."""
    started = time.monotonic()
    name = f"layer {item.keys[0][0]}"
    pieces = workbench.losses(dict.fromkeys(item.keys, LOWEST), item.windows)
    return Found({f"fast_s {name}": time.monotonic() - started}, {name: _lists(pieces)})


def _alone(workbench: Workbench, item: Measurement) -> Found:
    """The paper's importance (arXiv 2308.14352, section III-B): each expert alone at the lowest width."""
    replay = workbench.replay(item.windows)
    numbers, pieces = {}, {}
    for key in item.keys:
        started = time.monotonic()
        pieces[f"alone {expert_name(key)}"] = _lists(replay.change(key, LOWEST))
        numbers[f"exact_s {expert_name(key)}"] = time.monotonic() - started
    return Found(numbers, pieces)


def _plan(workbench: Workbench, item: Measurement) -> Found:
    """Losses of a plan."""
    return Found({}, {"plan": _lists(workbench.losses(item.widths, item.windows))})


_KINDS: dict[str, Callable[[Workbench, Measurement], Found]] = {
    "outputs": _outputs,
    "layer": _layer,
    "alone": _alone,
    "plan": _plan,
}


def _lists(pieces: Sequence[Floats]) -> list[list[float]]:
    return [piece.tolist() for piece in pieces]


def _groups(keys: Sequence[ExpertKey], size: int) -> list[tuple[ExpertKey, ...]]:
    """Experts of one layer each, in order, at most so many together."""
    groups: list[tuple[ExpertKey, ...]] = []
    for layer in sorted({layer for layer, _ in keys}):
        own = [key for key in keys if key[0] == layer]
        groups += [tuple(own[start : start + size]) for start in range(0, len(own), size)]
    return groups


def _shards(windows: Windows) -> list[Windows]:
    return [windows[start : start + WINDOWS_OF_ITEM] for start in range(0, len(windows), WINDOWS_OF_ITEM)]


def _span(keys: Sequence[ExpertKey]) -> str:
    return f"{expert_name(keys[0])}-{keys[-1][1]}"


def _digest(widths: Widths) -> str:
    rows: list[Any] = [[*key, *widths[key].to_json()] for key in sorted(widths)]
    return xxhash.xxh3_64_hexdigest(json.dumps(rows).encode())
