"""``edgemoe plan``: bit widths for every expert, by measurement."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.given import read_texts
from edgemoe.cli.groups import with_groups
from edgemoe.cli.measuring import CalibrationTextsOption, MeasuringArguments, WorkArguments
from edgemoe.cli.options import JsonOption, MemoryOption, SourceArgument, unset
from edgemoe.cli.output import print_json, quoted, say, show_steps


@dataclass(frozen=True)
class GoalArguments:
    """What a plan is to reach, and how it is found."""

    tolerance: Annotated[
        str | None,
        unset(
            "--tolerance", "P%", "Make the model no worse than this, by --metric; as small as that allows."
        ),
    ] = None
    size: Annotated[
        str | None,
        unset("--size", "SIZE", "Or: the best model whose experts together take this, such as 3GiB."),
    ] = None
    bits: Annotated[
        float | None,
        unset("--bits", "X", "Or: the best model with this many bits per expert weight on average.", min=0.1),
    ] = None
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="knapsack; exact: the same with every expert measured on its own; paper: by rank only.",
        ),
    ] = "knapsack"
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="What --tolerance limits: perplexity (relative rise), accuracy (of the next token; fall in"
            " points) or kl (divergence in nats per token, without %).",
        ),
    ] = "perplexity"
    profile: Annotated[
        Path | None,
        unset(
            "--profile",
            "FOLDER",
            "Choose by this profile, made by edgemoe profile; all of the text then only measures."
            "  [default: choose by half of the text]",
        ),
    ] = None
    keeps_work: Annotated[
        bool, typer.Option("--keep", help="Keep OUT.work, a profile for the next plan.")
    ] = False


@with_groups
def plan(
    source: SourceArgument,
    texts: CalibrationTextsOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Plan to write, for convert --plan.")
    ],
    reached: GoalArguments,
    measured: MeasuringArguments,
    work: WorkArguments,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Choose a bit width for every expert.

    The result is the smallest store within a tolerance, or the best one within a size.

    Half of the text chooses the widths, and the other half measures the result: the tolerance holds there
    with 95 % confidence. On the way the model is converted to every width in a folder beside OUT, with
    weights rounded for the text. After an interruption the same command continues. OUT.trace lets convert
    round the weights the same way.

    \b
    edgemoe plan ./OLMoE-1B-7B --text book.txt --text chat.txt --tolerance 2% -o olmoe-plan.json
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    edgemoe plan ./OLMoE-1B-7B --text book.txt --bits 2.75 -o olmoe-plan.json
    """
    from edgemoe.errors import UnwrittenPlanError
    from edgemoe.workflows.plan import PlanOptions, describe_choice, plan_widths

    options = PlanOptions(
        **asdict(reached),
        **asdict(measured),
        executor=work.options(memory),
    )
    try:
        chosen = plan_widths(source, read_texts(texts), out, options, steps=show_steps)
    except UnwrittenPlanError as error:
        print(error.plan)
        raise
    if as_json:
        made = {"plan": str(out), "expert_bytes": chosen.choice.num_bytes, "widths": chosen.num_experts}
        print_json({**made, **chosen.plan.origin})
        return
    for line in describe_choice(chosen):
        print(line)
    say("next: " + quoted("edgemoe", "convert", source, out.with_suffix(".store"), "--plan", out))
