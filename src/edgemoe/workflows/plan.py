"""A width for every expert, chosen by measuring: ``plan_widths``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemoe.calib.trace import TRACE_FILE
from edgemoe.calib.widths import ChosenWidths, choose_widths
from edgemoe.calib.widths.calibration import TRACE
from edgemoe.calib.widths.quality import find_metric
from edgemoe.calib.widths.search import METHODS
from edgemoe.errors import RequestError, UnwrittenPlanError
from edgemoe.executors import find_executor
from edgemoe.progress import ShowSteps, unseen
from edgemoe.quant import BitPlan
from edgemoe.store.durable import replace_file
from edgemoe.workflows.measuring import MeasuringOptions
from edgemoe.workflows.outputs import refuse_output
from edgemoe.workflows.widths import read_goal, trace_beside


@dataclass(frozen=True)
class PlanOptions(MeasuringOptions):
    """What a plan is to reach, and how it is found; checked when it is made.

    One of ``tolerance`` (of ``metric``, such as "2%"), ``size`` of all experts and ``bits`` per expert
    weight. ``metric``: "perplexity" (relative rise), "accuracy" (fall in points) or "kl" (nats per token).
    ``method``: "knapsack"; "exact", with every expert measured alone; or "paper", ranked only. ``profile`` is
    one that ``profile_model`` has made, and all of the text measures; by default half of the text makes one
    beside the plan, which stays if ``keeps_work``.

    Raises:
        RequestError: no goal, or several; or an option has no such value.
    """

    tolerance: str | None = None
    size: str | int | None = None
    bits: float | None = None
    method: str = "knapsack"
    metric: str = "perplexity"
    profile: str | Path | None = None
    keeps_work: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RequestError(f"no method {self.method!r}; choose one of {', '.join(METHODS)}")
        read_goal(self.tolerance, self.size, self.bits, find_metric(self.metric))
        super().__post_init__()


def plan_widths(
    source: str | Path,
    texts: Mapping[str, str],
    out: str | Path,
    options: PlanOptions,
    *,
    steps: ShowSteps = unseen,
) -> ChosenWidths:
    """Choose a width for every expert of a checkpoint, by measuring on texts (contents by name).

    Writes the plan ``out`` and beside it OUT.trace, which ``convert_model`` rounds the experts for. While it
    lasts OUT.work holds what has been measured: an interrupted call goes on.

    Raises:
        CheckpointError: the checkpoint is damaged or not supported.
        ConversionError: the disk is full, or another process works on the profile.
        PlanError: nothing reaches the goal.
        RequestError: ``out`` exists, or the texts are too short.
        UnwrittenPlanError: the plan was found, and cannot be written.
        WorkerError: a worker of the executor failed.
    """
    source, out = Path(source), Path(out)
    refuse_output(out)
    _refuse_foreign_trace(trace_beside(out))
    has_profile = options.profile is not None
    folder = out.with_name(f"{out.name}.work") if options.profile is None else Path(options.profile)
    metric = find_metric(options.metric)
    chosen = choose_widths(
        source,
        texts,
        read_goal(options.tolerance, options.size, options.bits, metric),
        folder,
        options.calibration(),
        method=options.method,
        metric=metric,
        has_profile=has_profile,
        steps=steps,
        executor=find_executor(options.executor),
    )
    _keep(chosen.plan, out, folder / TRACE)
    if not has_profile and not options.keeps_work:
        shutil.rmtree(folder)
    return chosen


def describe_choice(chosen: ChosenWidths) -> list[str]:
    """What was chosen and what it costs, in two lines."""
    origin = chosen.plan.origin
    low, high = origin["interval"]
    accuracy = f"accuracy {-origin['accuracy_loss']:+.2%}, " if origin["metric"] == "accuracy" else ""
    return [
        f"{origin['bits_per_weight']:.2f} bits per expert weight (gate and up/down): "
        + ", ".join(f"{name} ×{count}" for name, count in chosen.num_experts.items()),
        f"{accuracy}perplexity {origin['perplexity_increase']:+.2%} ({low:+.2%} to {high:+.2%}),"
        f" divergence {origin['divergence']:.4f} nats on {origin['num_tokens']} tokens that the"
        " plan was not made from",
    ]


def _keep(plan: BitPlan, out: Path, trace: Path) -> None:
    text, beside = json.dumps(plan.to_json(), indent=1), trace_beside(out)
    try:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(trace, beside)
        replace_file(out, text.encode())  # last: a plan that is there has its trace
    except BaseException as error:  # an interrupt too
        shutil.rmtree(beside, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error.args[0][0][2]  # copytree gathers what failed: from, to, why
        raise UnwrittenPlanError(
            f"the plan cannot be written to {out}: {reason}; its trace is {trace}", text
        ) from error


def _refuse_foreign_trace(folder: Path) -> None:
    if folder.exists() and not (folder / TRACE_FILE).is_file():
        raise RequestError(f"{folder} is no trace, and the plan's would replace it; choose another name")
