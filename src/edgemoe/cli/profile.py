"""``edgemoe profile``: how much every expert suffers at every width, measured once for many plans."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.given import read_texts
from edgemoe.cli.groups import with_groups
from edgemoe.cli.measuring import CalibrationTextsOption, MeasuringArguments, WorkArguments
from edgemoe.cli.options import JsonOption, MemoryOption, SourceArgument
from edgemoe.cli.output import print_json, quoted, say, show_steps

if TYPE_CHECKING:
    from edgemoe.workflows.profile import ProfileReport

# Qwen3-30B-A3B has 48 layers of 128: the model whose cost is told beside one's own.
_LARGE = 48 * 128


@with_groups
def profile(
    source: SourceArgument,
    texts: CalibrationTextsOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Profile to make.")],
    measured: MeasuringArguments,
    work: WorkArguments,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="fast: errors of outputs, and one run per layer; exact: also one run per expert.",
        ),
    ] = "fast",
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Measure how much each expert suffers at each bit width, for plan and report.

    Every second window of the text is used; plan measures on the others. The folder holds the model at every
    width, with weights rounded for the text. After an interruption the same command continues, with any
    --executor.

    \b
    edgemoe profile ./OLMoE-1B-7B --text book.txt --text chat.txt -o olmoe.profile
    edgemoe profile ./OLMoE-1B-7B --text book.txt -o olmoe.profile --executor ray --memory 16GiB
    edgemoe plan ./OLMoE-1B-7B --profile olmoe.profile --text book.txt --tolerance 2% -o olmoe-plan.json
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    """
    from edgemoe.workflows.profile import ProfileOptions, profile_model

    options = ProfileOptions(method=method, executor=work.options(memory), **asdict(measured))
    made = profile_model(source, read_texts(texts), out, options, steps=show_steps)
    if as_json:
        print_json(made.to_json())
        return
    for line in _describe(made):
        print(line)
    plan_file = out.with_name(f"{out.stem}-plan.json")
    given = ["--profile", out, *(part for text in texts for part in ("--text", text))]
    say("next: " + quoted("edgemoe", "plan", source, *given, "--tolerance", "2%", "-o", plan_file))


def _describe(made: ProfileReport) -> list[str]:
    from edgemoe.units import format_duration

    named = ", ".join(made.super_experts)
    lines = [
        f"{made.profile}: {made.num_experts} experts on {made.num_tokens} tokens"
        + (f"; super experts, kept at 8 bits: {named}" if named else "; no super experts")
    ]
    for method, all_s in (("fast", made.fast_s), ("exact", made.exact_s)):
        if all_s is not None:
            each_s = all_s / made.num_experts
            lines.append(
                f"{method}: {each_s:.3f} s per expert; {_LARGE} experts of this size:"
                f" {format_duration(each_s * _LARGE)}"
            )
    if made.rank_correlation is not None:
        lines.append(f"rank correlation of fast with exact: {made.rank_correlation:.2f}")
    return lines
