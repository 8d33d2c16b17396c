"""``edgemoe export``: a store becomes a GGUF file that llama.cpp runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import JsonOption, StoreArgument
from edgemoe.cli.output import byte_progress, print_json, quoted, say

if TYPE_CHECKING:
    from edgemoe.export import ExportReport


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to make, such as model.gguf.")],
    block_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Make all matrices of one type, such as f16 or q8_0.  [default: what holds each as it is]",
            show_default=False,
        ),
    ] = None,
    overwrites: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Write what a store holds as a GGUF file, for llama.cpp and what is built on it.

    Blocks that came from a GGUF file are written byte for byte as they came, 8 bits as Q8_0 and floats as
    they are. 4 bits become Q4_1, 2, 3 and 6 bits Q6_K: these hold the same codes, and what rounding their
    scales changes is reported. A GGUF file has one type for all experts of a layer: where a plan gives them
    several widths, it is one that holds all of them. Tokenizer, chat template and the authors' way to draw
    tokens go along. OUT appears only when it is complete.

    What GGUF files or llama.cpp cannot say of a model is refused by name, before anything is written.

    \b
    edgemoe export olmoe.store olmoe.gguf && llama-cli -m olmoe.gguf -p "Once upon a time"
    edgemoe export olmoe.store olmoe-f16.gguf --type f16
    """
    from edgemoe.export import export_gguf

    with byte_progress(f"exporting to {out.name}") as advance:
        report = export_gguf(store, out, block_type=block_type, overwrite=overwrites, progress=advance)
    if as_json:
        print_json(report.to_json())
    else:
        _say_report(report, out)


def _say_report(report: ExportReport, out: Path) -> None:
    from edgemoe.units import format_duration, format_size

    say(f"wrote {out}: {format_size(report.num_bytes)} in {format_duration(report.elapsed_s)}")
    for change, count in report.num_matrices.items():
        error = report.rounding[change]
        says = f", weights changed by {error:.2%} (root mean square, relative)" if error else ""
        say(f"{change}: {count} matrices{says or ', every weight as it was'}")
    say("next: " + quoted("llama-cli", "-m", out, "-p", "Once upon a time"))
