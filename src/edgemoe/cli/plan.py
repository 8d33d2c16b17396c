"""``edgemoe plan``: bit widths for every expert, by measurement."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import (
    DenseBitsOption,
    JsonOption,
    MaxTextTokensOption,
    MemoryOption,
    WindowOption,
    WorkArguments,
    read_texts,
    refuse_output,
)
from edgemoe.cli.output import count_progress, print_json, quoted, say
from edgemoe.cli.profile import calibration_options
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.calib.widths import ChosenWidths, Goal
    from edgemoe.calib.widths.quality import Metric
    from edgemoe.quant import BitPlan

TRACE = "trace"  # in the folder of a profile


@with_groups
def plan(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Hugging Face folder or GGUF file.")],
    texts: Annotated[
        list[Path],
        typer.Option("--text", metavar="FILE", help="UTF-8 text to calibrate on; may be given again."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Plan to write, for convert --plan.")
    ],
    work: WorkArguments,
    tolerance: Annotated[
        str | None,
        typer.Option("--tolerance", metavar="P%", help="Loss to allow, by --metric.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="Or: bytes of all experts.", show_default=False),
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option("--bits", metavar="X", min=0.1, help="Or: bits per expert weight.", show_default=False),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="knapsack; exact: with every expert measured alone; or paper: ranked only.",
        ),
    ] = "knapsack",
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="What --tolerance limits: perplexity (relative rise), accuracy (fall in points, next token)"
            " or kl (nats per token, without %).",
        ),
    ] = "perplexity",
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="FOLDER",
            help="Made by edgemoe profile; the text then only measures.  [default: half of the text]",
            show_default=False,
        ),
    ] = None,
    dense_bits: DenseBitsOption = None,
    max_tokens: MaxTextTokensOption = 32768,
    window: WindowOption = None,
    memory: MemoryOption = None,
    keeps_work: Annotated[
        bool, typer.Option("--keep", help="Keep OUT.work, a profile, for the next plan.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Choose a bit width for every expert.

    The smallest store within a tolerance of the loss, or the best one within a size.

    Half of the text chooses the widths, the other half measures the result; the tolerance is met with 95 %
    confidence on that half. The model is converted to every width on the way, its weights rounded for the
    text (beside OUT; interrupted, the same command goes on). OUT.trace is what convert needs to round them so
    again.

    \b
    edgemoe plan ./OLMoE-1B-7B --text book.txt --text chat.txt --tolerance 2% -o olmoe-plan.json
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    edgemoe plan ./OLMoE-1B-7B --text book.txt --bits 2.75 -o olmoe-plan.json
    """
    from edgemoe.calib.widths import choose_widths
    from edgemoe.calib.widths.quality import find_metric
    from edgemoe.calib.widths.search import METHODS

    refuse_output(out)
    _refuse_foreign_trace(trace_beside(out))
    if method not in METHODS:
        raise RequestError(f"no method {method!r}; choose one of {', '.join(METHODS)}")
    limit = find_metric(metric)
    goal = read_goal(tolerance, size, bits, limit)
    folder = profile or out.with_name(f"{out.name}.work")
    options = calibration_options(max_tokens, window, dense_bits, memory)
    chosen = choose_widths(
        *(source, read_texts(texts), goal, folder, options),
        method=method, metric=limit, has_profile=profile is not None, steps=count_progress,
        executor=work.find(memory),
    )  # fmt: skip
    _keep(chosen.plan, out, folder / TRACE)
    if profile is None and not keeps_work:
        shutil.rmtree(folder)
    if as_json:
        made = {"plan": str(out), "expert_bytes": chosen.choice.num_bytes, "widths": chosen.num_experts}
        print_json({**made, **chosen.plan.origin})
        return
    for line in describe(chosen):
        print(line)
    say("next: " + quoted("edgemoe", "convert", source, out.with_suffix(".store"), "--plan", out))


def _keep(chosen: BitPlan, out: Path, trace: Path) -> None:
    """Write the plan and its trace. What took hours to find is printed where it cannot be written."""
    from edgemoe.store.durable import replace_file

    text = json.dumps(chosen.to_json(), indent=1)
    try:
        replace_file(out, text.encode())
        shutil.rmtree(trace_beside(out), ignore_errors=True)
        shutil.copytree(trace, trace_beside(out))
    except OSError as error:
        say(f"the plan cannot be written to {out}: {error.strerror}; here it is; its trace is {trace}")
        print(text)
        raise


def trace_beside(plan: Path) -> Path:
    """Where a plan's trace lies."""
    return plan.with_name(f"{plan.name}.trace")


def _refuse_foreign_trace(folder: Path) -> None:
    from edgemoe.calib.trace import TRACE_FILE

    if folder.exists() and not (folder / TRACE_FILE).is_file():
        raise RequestError(f"{folder} is no trace, and the plan's would replace it; choose another name")


def describe(chosen: ChosenWidths) -> list[str]:
    """What was chosen and what it costs, in two lines."""
    plan = chosen.plan
    low, high = plan.origin["interval"]
    accuracy = (
        f"accuracy {-plan.origin['accuracy_loss']:+.2%}, " if plan.origin["metric"] == "accuracy" else ""
    )
    return [
        f"{plan.origin['bits_per_weight']:.2f} bits per expert weight (gate and up/down): "
        + ", ".join(f"{name} ×{count}" for name, count in chosen.num_experts.items()),
        f"{accuracy}perplexity {plan.origin['perplexity_increase']:+.2%} ({low:+.2%} to {high:+.2%}),"
        f" divergence {plan.origin['divergence']:.4f} nats on {plan.origin['num_tokens']} tokens that the"
        " plan was not made from",
    ]


def read_goal(
    tolerance: str | None, size: str | None, bits: float | None, metric: Metric | None = None
) -> Goal:
    """What a plan is to reach, of the options that people give."""
    from edgemoe.calib.widths.search import Goal
    from edgemoe.units import parse_size

    if sum(value is not None for value in (tolerance, size, bits)) != 1:
        raise RequestError("say what to reach: one of --tolerance, --size and --bits")
    if tolerance is None:
        return Goal(num_bytes=None if size is None else parse_size(size), bits_per_weight=bits)
    is_share = metric is None or metric.unit == "%"
    try:
        limit = float(tolerance.removesuffix("%")) / 100 if is_share else float(tolerance)
    except ValueError:
        limit = -1.0
    if not 0 < limit < 10:
        example = "a rise of perplexity such as 2%" if is_share else "nats per token such as 0.01"
        raise RequestError(f"--tolerance {tolerance!r}: give {example}")
    return Goal(tolerance=limit)
