"""``edgemoe profile``: how much every expert suffers at every width, measured once for many plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    refuse_folder_of,
)
from edgemoe.cli.output import count_progress, print_json, quoted, say
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.calib.widths import CalibrationOptions, Profile

# Qwen3-30B-A3B has 48 layers of 128: the model whose cost is told beside one's own.
_LARGE = 48 * 128


@with_groups
def profile(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Hugging Face folder or GGUF file.")],
    texts: Annotated[
        list[Path],
        typer.Option("--text", metavar="FILE", help="UTF-8 text to calibrate on; may be given again."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Profile to make.")],
    work: WorkArguments,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="fast: output errors and one run for each layer; exact: also one run for every expert.",
        ),
    ] = "fast",
    dense_bits: DenseBitsOption = None,
    max_tokens: MaxTextTokensOption = 32768,
    window: WindowOption = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Measure how much every expert matters, for plan and report.

    Every other window of the text is used; plan measures on the others. The folder holds the model at every
    width, its weights rounded for the text. Interrupted or killed, the same command goes on, with any
    --executor.

    \b
    edgemoe profile ./OLMoE-1B-7B --text book.txt --text chat.txt -o olmoe.profile
    edgemoe profile ./OLMoE-1B-7B --text book.txt -o olmoe.profile --executor ray --memory 16GiB
    edgemoe plan ./OLMoE-1B-7B --profile olmoe.profile --text book.txt --tolerance 2% -o olmoe-plan.json
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    """
    from edgemoe.calib.widths import make_profile

    if method not in ("fast", "exact"):
        raise RequestError(f"no method {method!r}; choose one of fast, exact")
    refuse_folder_of(out)
    options = calibration_options(max_tokens, window, dense_bits, memory)
    executor = work.find(memory)
    with make_profile(source, out, read_texts(texts), options, count_progress, executor) as found:
        found.find_fast()
        if method == "exact":
            found.find_exact()
        record = _summary(found, str(out), method == "exact")
    if as_json:
        print_json(record)
        return
    for line in _describe(record):
        print(line)
    plan_file = out.with_name(f"{out.stem}-plan.json")
    given = ["--profile", out, *(part for text in texts for part in ("--text", text))]
    say("next: " + quoted("edgemoe", "plan", source, *given, "--tolerance", "2%", "-o", plan_file))


def calibration_options(
    max_tokens: int, window: int | None, dense_bits: str | None, memory: str | None
) -> CalibrationOptions:
    """How a model is measured, of the options that people give."""
    from edgemoe.calib.widths import CalibrationOptions
    from edgemoe.quant import format_for_bits
    from edgemoe.units import parse_size

    dense_format = None if dense_bits is None else format_for_bits(dense_bits)
    return CalibrationOptions(
        max_tokens, window, dense_format, None if memory is None else parse_size(memory)
    )


def _summary(found: Profile, out: str, is_exact: bool) -> dict[str, Any]:
    from edgemoe.calib.widths.ladder import UNIFORM
    from edgemoe.calib.widths.sensitivity import (
        measured_alone,
        output_errors,
        predicted_divergence,
        rank_correlation,
        seconds,
        super_experts,
    )

    ladder, values = found.ladder, found.found
    predicted = predicted_divergence(output_errors(ladder.keys, values), values)
    record: dict[str, Any] = {
        "profile": out,
        "num_experts": len(ladder.keys),
        "num_tokens": sum(map(len, found.windows)),
        "super_experts": [f"{layer}.{expert}" for layer, expert in super_experts(ladder.keys, values)],
        "fast_s": seconds(values, "fast"),
    }
    if is_exact:
        alone = measured_alone(ladder.keys, values)
        fast = [predicted[key][UNIFORM[0]] for key in ladder.keys]
        record["exact_s"] = seconds(values, "exact")
        record["rank_correlation"] = rank_correlation(fast, [alone[key] for key in ladder.keys])
    return record


def _describe(record: dict[str, Any]) -> list[str]:
    from edgemoe.units import format_duration

    count = record["num_experts"]
    named = ", ".join(record["super_experts"])
    lines = [
        f"{record['profile']}: {count} experts on {record['num_tokens']} tokens"
        + (f"; super experts, kept at 8 bits: {named}" if named else "; no super experts")
    ]
    for method in ("fast", "exact"):
        if f"{method}_s" in record:
            each = record[f"{method}_s"] / count
            lines.append(
                f"{method}: {each:.3f} s per expert; {_LARGE} experts of this size:"
                f" {format_duration(each * _LARGE)}"
            )
    if "rank_correlation" in record:
        lines.append(f"rank correlation of fast with exact: {record['rank_correlation']:.2f}")
    return lines
