"""``edgemoe export``: a store becomes a GGUF file that llama.cpp runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.options import JsonOption, StoreArgument
from edgemoe.cli.output import byte_progress, count_progress, print_json, quoted, say
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.export import ExportReport


def export(
    store: StoreArgument,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUT]",
            help="File to make, such as model.gguf; none where --recipe or --imatrix is all.",
            show_default=False,
        ),
    ] = None,
    block_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Make all matrices of one type, such as f16 or q8_0.  [default: what holds each as it is]",
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
    r"""Write what a store holds as a GGUF file, for llama.cpp and what is built on it.

    Blocks that came from a GGUF file are written byte for byte as they came, 8 bits as Q8_0 and floats as
    they are. 4 bits become Q4_1, 2, 3 and 6 bits Q6_K: these hold the same codes, and what rounding their
    scales changes is reported. A GGUF file has one type for all experts of a layer: where a plan gives them
    several widths, it is one that holds all of them. Tokenizer, chat template and the authors' way to draw
    tokens go along. OUT appears only when it is complete.

    What GGUF files or llama.cpp cannot say of a model is refused by name, before anything is written.

    --recipe and --imatrix are for who has the model in 16 bits and wants llama.cpp's own types. The recipe
    rounds the plan to layers and projections, and what that is predicted to change is reported.

    \b
    edgemoe export olmoe.store olmoe.gguf && llama-cli -m olmoe.gguf -p "Once upon a time"
    edgemoe export olmoe.store olmoe-f16.gguf --type f16
    edgemoe export mixed.store --recipe types.txt --imatrix olmoe.imatrix.gguf --trace olmoe.trace
    llama-quantize --imatrix olmoe.imatrix.gguf --tensor-type-file types.txt olmoe-f16.gguf out.gguf q8_0
    """
    if out is None and recipe is None and imatrix is None:
        raise RequestError("nothing to write; give OUT, --recipe or --imatrix")
    if (imatrix is None) != (trace is None):
        raise RequestError("--imatrix is made of what --trace has recorded; give both or neither")
    record: dict[str, Any] = {}
    if recipe is not None:
        record |= _write_recipe(store, recipe)
    if imatrix is not None and trace is not None:
        record |= _write_imatrix(store, imatrix, trace, overwrites)
    if out is not None:
        from edgemoe.export import export_gguf

        with byte_progress(f"exporting to {out.name}") as advance:
            report = export_gguf(store, out, block_type=block_type, overwrite=overwrites, progress=advance)
        record |= report.to_json()
        if not as_json:
            _say_report(report, out)
    if as_json:
        print_json(record)


def _write_recipe(store: Path, path: Path) -> dict[str, Any]:
    from edgemoe.export import make_recipe, write_recipe
    from edgemoe.store import open_store

    recipe = make_recipe(open_store(store))
    write_recipe(recipe, path)
    say(
        f"wrote {path}: {len(recipe.types)} types; weights of experts are predicted to change by"
        f" {recipe.error:.1%}, by the plan's own widths {recipe.plan_error:.1%}"
    )
    return {"recipe": recipe.to_json()}


def _write_imatrix(store: Path, path: Path, trace: Path, overwrites: bool) -> dict[str, Any]:
    from edgemoe.calib.widths.inputs import read_inputs
    from edgemoe.export import write_imatrix
    from edgemoe.models import read_spec
    from edgemoe.store import open_store

    opened = open_store(store)
    inputs = read_inputs(trace, read_spec(opened.config))
    with count_progress(f"writing {path.name}", "experts") as advance:
        number = write_imatrix(
            opened, inputs, path, source=trace.name, overwrite=overwrites, progress=advance
        )
    say(f"wrote {path}: importance of the inputs of {number} tensors of experts")
    return {"imatrix": {"path": str(path), "num_tensors": number}}


def _say_report(report: ExportReport, out: Path) -> None:
    from edgemoe.units import format_duration, format_size

    say(f"wrote {out}: {format_size(report.num_bytes)} in {format_duration(report.elapsed_s)}")
    for change, count in report.num_matrices.items():
        error = report.rounding[change]
        says = f", weights changed by {error:.2%} (root mean square, relative)" if error else ""
        say(f"{change}: {count} matrices{says or ', every weight as it was'}")
    for note in report.notes:
        say(f"note: {note}")
    say("next: " + quoted("llama-cli", "-m", out, "-p", "Once upon a time"))
