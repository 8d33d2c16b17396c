"""Widths for a checkpoint in one call: make or continue a profile, then choose a plan from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgemoe.calib.text import DEFAULT_WINDOW, windows_of
from edgemoe.calib.trace import read_trace
from edgemoe.calib.widths.calibration import TRACE, ProfileOptions, read_facts
from edgemoe.calib.widths.inputs import TraceInputs
from edgemoe.calib.widths.ladder import REFERENCE
from edgemoe.calib.widths.profile import Profile
from edgemoe.calib.widths.quality import PERPLEXITY, Metric
from edgemoe.calib.widths.search import Goal, Plan, PlanSearch, held_out_windows
from edgemoe.checkpoint import open_checkpoint
from edgemoe.errors import RequestError
from edgemoe.executors import Executor
from edgemoe.models import read_spec
from edgemoe.progress import ShowSteps, unseen
from edgemoe.quant import BitPlan, ExpertFormats, ExpertInputs

DEFAULT_TOKENS = 32768
_DENSE = "q8"


@dataclass(frozen=True)
class CalibrationOptions:
    """How a model is measured. None: as an existing profile was, or the default."""

    max_tokens: int = DEFAULT_TOKENS  # of all texts together
    window: int | None = None  # tokens; 512, or the model's context
    dense_format: str | None = None  # q8
    budget_bytes: int | None = None  # what the machine has free


@dataclass(frozen=True)
class ChosenWidths:
    """A plan to convert with, what the experts are to be rounded for, and what the plan was chosen by."""

    plan: BitPlan
    inputs: ExpertInputs
    choice: Plan

    @property
    def num_experts(self) -> dict[str, int]:
        """How many experts have which widths: "q3", or "q3/q4" for gate and up, and down."""
        return dict(sorted(Counter(_short(formats) for formats in self.choice.widths.values()).items()))


def choose_widths(
    source: Path,
    texts: Mapping[str, str],
    goal: Goal,
    folder: Path,
    options: CalibrationOptions | None = None,
    *,
    method: str = "knapsack",
    metric: Metric = PERPLEXITY,
    has_profile: bool = False,
    steps: ShowSteps = unseen,
    executor: Executor | None = None,
) -> ChosenWidths:
    """Choose a width for every expert of a checkpoint by measuring on texts, given by their names.

    ``folder`` becomes a profile on half of the windows, and the others measure the plan; if it
    ``has_profile`` already, all of the texts measure. An interrupted call goes on when it is made again. The
    work runs in this process, or where an executor says; the widths are the same.

    Raises:
        CheckpointError: the checkpoint is damaged or not supported.
        ConversionError: the disk is full, or another process works on the profile.
        PlanError: nothing reaches the goal.
        RequestError: the texts are too short, or the folder holds something else.
        WorkerError: a worker of the executor failed.
    """
    options = options or CalibrationOptions()
    opened = open_profile if has_profile else partial(make_profile, holds_out=True)
    with opened(source, folder, texts, options, steps, executor) as profile:
        windows = windows_of(folder / REFERENCE, texts, options.max_tokens, profile.options.window)
        search = PlanSearch(profile, windows if has_profile else windows[1::2], metric)
        choice = search.choose(goal, method)
        inputs = TraceInputs(read_trace(folder / TRACE))
        return ChosenWidths(search.bit_plan(choice, method, ", ".join(texts)), inputs, choice)


def make_profile(
    source: Path,
    folder: Path,
    texts: Mapping[str, str],
    options: CalibrationOptions | None = None,
    steps: ShowSteps = unseen,
    executor: Executor | None = None,
    *,
    holds_out: bool = False,
) -> Profile:
    """A profile of every other window of the texts, or what an earlier run has left of the same. Close it.

    ``holds_out``: the windows between them are to measure plans, and must be enough for it.

    Raises:
        CheckpointError, ConversionError, RequestError, WorkerError: as ``choose_widths``.
    """
    options = options or CalibrationOptions()
    _refuse_without_tokenizer(source)
    window = options.window or _usual_window(source)

    def find_windows(store: Path) -> list[list[int]]:
        windows = windows_of(store, texts, options.max_tokens, window)
        if holds_out:  # refused now, not when all has been converted and measured
            held_out_windows(windows[1::2], windows[::2], window)
        return windows[::2]

    made = ProfileOptions(window, options.dense_format or _DENSE, options.budget_bytes)
    return Profile.make(source, folder, find_windows, steps, made, executor)


def open_profile(
    source: Path,
    folder: Path,
    texts: Mapping[str, str],
    options: CalibrationOptions,
    steps: ShowSteps = unseen,
    executor: Executor | None = None,
) -> Profile:
    """A profile that has been made; what it was made with cannot be asked for again otherwise. Close it.

    Raises:
        RequestError: it was made with another window or another format of the dense weights.
    """
    facts = read_facts(folder)
    if options.window not in (None, facts["window"]) or options.dense_format not in (None, facts["dense"]):
        raise RequestError(
            f"{folder} has windows of {facts['window']} tokens and dense weights at {facts['dense']};"
            " leave out --window and --dense-bits, or make another profile"
        )
    made = ProfileOptions(facts["window"], facts["dense"], options.budget_bytes)
    return Profile.make(source, folder, lambda _: facts["windows"], steps, made, executor)


def _refuse_without_tokenizer(source: Path) -> None:
    """Texts are measured on; without a tokenizer that would be refused after the first conversion."""
    opened = open_checkpoint(source)
    try:
        if "tokenizer.json" not in opened.files():
            raise RequestError(
                f"{source}: has no tokenizer.json, and widths are measured on text; load its tokenizer with"
                " transformers' AutoTokenizer and save it there"
            )
    finally:
        opened.close()


def _usual_window(source: Path) -> int:
    opened = open_checkpoint(source)
    try:
        return min(DEFAULT_WINDOW, read_spec(opened.config()).max_context)
    finally:
        opened.close()


def _short(formats: ExpertFormats) -> str:
    return formats.up if formats.up == formats.down else f"{formats.up}/{formats.down}"
