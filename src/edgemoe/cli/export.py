"""``edgemoe export``: a store goes to llama.cpp as a GGUF file, to transformers and vLLM as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.options import JsonOption, StoreArgument
from edgemoe.cli.output import print_json, quoted, say, show_steps

if TYPE_CHECKING:
    from edgemoe.export import CheckpointReport, ExportReport


def export(
    store: StoreArgument,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUT]",
            help="File or folder to make, such as model.gguf; none where --recipe or --imatrix is all.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="What OUT becomes: gguf, compressed-tensors.")
    ] = "gguf",
    block_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Make all matrices of one type: f16, q8_0, w4a16, ...  [default: what holds each as it is]",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="Write the plan's types of experts, as llama-quantize --tensor-type takes them.",
            show_default=False,
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            "--imatrix",
            metavar="FILE",
            help="Write llama.cpp's importance matrix of the experts, from --trace.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FOLDER", help="What edgemoe trace has recorded.", show_default=False
        ),
    ] = None,
    overwrites: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Write what a store holds for llama.cpp (GGUF), or for transformers and vLLM.

    Blocks that came from a GGUF file are written byte for byte as they came, 8 bits as Q8_0 and floats as
    they are. 4 bits become Q4_1, 2, 3 and 6 bits Q6_K: these hold the same codes, and what rounding their
    scales changes is reported. A GGUF file has one type for all experts of a layer: where a plan gives them
    several widths, it is one that holds all of them. Tokenizer, chat template and the authors' way to draw
    tokens go along. OUT appears only when it is complete.

    What GGUF files or llama.cpp cannot say of a model is refused by name, before anything is written.

    --to compressed-tensors makes a folder of Hugging Face's kind, with integers in groups of 32 columns.
    Experts of a layer have 4 bits where none of them has more in the store, else 8; other matrices have 8
    bits or are bf16. --type w4a16, w8a16 or bf16 makes all of one type. Weights are rounded anew, and what
    that changes is reported. transformers takes one type for the experts of all layers, vLLM one for each.

    --recipe and --imatrix are for who has the model in 16 bits and wants llama.cpp's own types. The recipe
    rounds the plan to layers and projections, and what that is predicted to change is reported.

    \b
    edgemoe export olmoe.store olmoe.gguf && llama-cli -m olmoe.gguf -p "Once upon a time"
    edgemoe export olmoe.store olmoe-f16.gguf --type f16
    edgemoe export olmoe.store olmoe-w4a16 --to compressed-tensors && vllm serve olmoe-w4a16
    edgemoe export mixed.store --recipe types.txt --imatrix olmoe.imatrix.gguf --trace olmoe.trace
    llama-quantize --imatrix olmoe.imatrix.gguf --tensor-type-file types.txt olmoe-f16.gguf out.gguf q8_0
    """
    from edgemoe.workflows.export import ExportOptions, export_store

    options = ExportOptions(out, block_type, recipe, imatrix, trace, overwrites, to)
    made = export_store(store, options, steps=show_steps)
    record: dict[str, Any] = {}
    if made.recipe is not None:
        record["recipe"] = made.recipe.to_json()
        say(
            f"wrote {recipe}: {len(made.recipe.types)} types; weights of experts are predicted to change by"
            f" {made.recipe.error:.1%}, by the plan's own widths {made.recipe.plan_error:.1%}"
        )
    if made.num_importances is not None:
        record["imatrix"] = {"path": str(imatrix), "num_tensors": made.num_importances}
        say(f"wrote {imatrix}: importance of the inputs of {made.num_importances} tensors of experts")
    if made.report is not None and as_json:
        record |= made.report.to_json()
    elif made.report is not None and out is not None:
        _say_report(made.report, out)
    if as_json:
        print_json(record)


def _say_report(report: ExportReport | CheckpointReport, out: Path) -> None:
    from edgemoe.export import CheckpointReport
    from edgemoe.units import format_duration, format_size

    say(f"wrote {out}: {format_size(report.num_bytes)} in {format_duration(report.elapsed_s)}")
    for change, count in report.num_matrices.items():
        error = report.rounding[change]
        says = f", weights changed by {error:.2%} (root mean square, relative)" if error else ""
        say(f"{change}: {count} matrices{says or ', every weight as it was'}")
    for note in report.notes:
        say(f"note: {note}")
    if isinstance(report, CheckpointReport):
        say("next: " + quoted("vllm", "serve", out))
    else:
        say("next: " + quoted("llama-cli", "-m", out, "-p", "Once upon a time"))
