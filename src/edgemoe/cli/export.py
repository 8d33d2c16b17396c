"""``edgemoe export``: a store goes to llama.cpp as a GGUF file, to transformers and vLLM as a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, StoreArgument, unset
from edgemoe.cli.output import print_json, quoted, say, show_steps

if TYPE_CHECKING:
    from edgemoe.export import CheckpointReport, ExportReport
    from edgemoe.workflows.export import Exported, ExportOptions


@dataclass(frozen=True)
class KindArguments:
    """What is written, and of which types."""

    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="Kind of OUT: gguf or compressed-tensors.")
    ] = "gguf"
    block_type: Annotated[
        str | None,
        unset(
            "--type",
            "TYPE",
            "Give all matrices this type: f16, q8_0, w4a16, ...  [default: the nearest for each]",
        ),
    ] = None
    recipe: Annotated[
        Path | None,
        unset("--recipe", "FILE", "Write the plan's widths as a file for llama-quantize --tensor-type-file."),
    ] = None
    imatrix: Annotated[
        Path | None,
        unset(
            "--imatrix",
            "FILE",
            "Write an importance matrix of the experts for llama-quantize; needs --trace.",
        ),
    ] = None
    trace: Annotated[
        Path | None,
        unset("--trace", "FOLDER", "Trace of the model, made by edgemoe trace."),
    ] = None
    overwrites: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False

    def options(self, out: Path | None) -> ExportOptions:
        """As the export takes them."""
        from edgemoe.workflows.export import ExportOptions

        return ExportOptions(
            out, self.block_type, self.recipe, self.imatrix, self.trace, self.overwrites, self.to
        )


@with_groups
def export(
    store: StoreArgument,
    kind: KindArguments,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="File or folder to make, such as model.gguf; leave it out for --recipe or --imatrix alone.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    r"""Write a store for llama.cpp (GGUF), or for transformers and vLLM.

    OUT appears only when it is complete, with the tokenizer, the chat template and the recommended sampling
    settings. What OUT's format cannot express is refused by name before anything is written.

    In a GGUF file, blocks that came from one are written byte for byte, 8 bits become Q8_0, and floats stay
    as they are. 4 bits become Q4_1, and 2, 3 and 6 bits Q6_K; these hold the same codes, and the command
    reports what rounding their scales changes. All experts of a layer share one type: where a plan gives
    them several widths, it is a type that holds all of them.

    --to compressed-tensors makes a Hugging Face folder with integers in groups of 32 columns. The experts of
    a layer get 4 bits if none of them has more in the store, else 8; other matrices get 8 bits or bf16.
    --type w4a16, w8a16 or bf16 gives all of them one type. Weights are rounded again, and the command reports
    what that changes. transformers needs one type for all experts; vLLM needs one for each layer.

    --recipe and --imatrix help if you have the model in 16 bits and want llama.cpp's own types. The recipe
    rounds the plan to whole layers and projections, and the command reports what that should change.

    \b
    edgemoe export olmoe.store olmoe.gguf && llama-cli -m olmoe.gguf -p "Once upon a time"
    edgemoe export olmoe.store olmoe-f16.gguf --type f16
    edgemoe export olmoe.store olmoe-w4a16 --to compressed-tensors && vllm serve olmoe-w4a16
    edgemoe export mixed.store --recipe types.txt --imatrix olmoe.imatrix.gguf --trace olmoe.trace
    llama-quantize --imatrix olmoe.imatrix.gguf --tensor-type-file types.txt olmoe-f16.gguf out.gguf q8_0
    """
    from edgemoe.workflows.export import export_store

    made = export_store(store, kind.options(out), steps=show_steps)
    if made.recipe is not None:
        say(
            f"wrote {kind.recipe}: {len(made.recipe.types)} types; weights of experts are predicted to change"
            f" by {made.recipe.error:.1%}, by the plan's own widths {made.recipe.plan_error:.1%}"
        )
    if made.num_importances is not None:
        say(f"wrote {kind.imatrix}: importance of the inputs of {made.num_importances} tensors of experts")
    if as_json:
        print_json(_record(made, kind.imatrix))
    elif made.report is not None and out is not None:
        _say_report(made.report, out)


def _record(made: Exported, imatrix: Path | None) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if made.recipe is not None:
        record["recipe"] = made.recipe.to_json()
    if made.num_importances is not None:
        record["imatrix"] = {"path": str(imatrix), "num_tensors": made.num_importances}
    return record if made.report is None else record | made.report.to_json()


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
