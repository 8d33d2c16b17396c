"""A store for llama.cpp, transformers and vLLM: ``export_store``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemoe.calib.widths import read_inputs
from edgemoe.errors import RequestError
from edgemoe.export import (
    CheckpointReport,
    ExportReport,
    Recipe,
    export_checkpoint,
    export_gguf,
    make_recipe,
    write_imatrix,
    write_recipe,
)
from edgemoe.models import read_spec
from edgemoe.progress import ShowSteps, unseen
from edgemoe.store import open_store

FORMATS = ("gguf", "compressed-tensors")


@dataclass(frozen=True)
class ExportOptions:
    """What is written; checked when it is made.

    ``out``: what is made, in the format ``to``: a GGUF file, or a checkpoint folder in the format of
    compressed-tensors. ``block_type``: the type of all matrices ("f16", "q8_0", ..., or "w4a16", "w8a16",
    "bf16" in such a folder); by default what holds each as it is, or is nearest to it. ``recipe``: a file of
    the plan's types for llama-quantize. ``imatrix``: llama.cpp's importance matrix, of what ``trace`` has
    recorded.

    Raises:
        RequestError: there is nothing to write, no such format, or one of imatrix and trace alone.
    """

    out: str | Path | None = None
    block_type: str | None = None
    recipe: str | Path | None = None
    imatrix: str | Path | None = None
    trace: str | Path | None = None
    overwrite: bool = False
    to: str = "gguf"

    def __post_init__(self) -> None:
        if self.out is None and self.recipe is None and self.imatrix is None:
            raise RequestError("nothing to write; give OUT, --recipe or --imatrix")
        if self.to not in FORMATS:
            raise RequestError(f"--to {self.to}: choose one of {', '.join(FORMATS)}")
        if (self.imatrix is None) != (self.trace is None):
            raise RequestError("--imatrix is made of what --trace has recorded; give both or neither")


@dataclass(frozen=True)
class Exported:
    """What was written, None where it was not asked for. ``num_importances``: tensors of the importance
    matrix.
    """

    recipe: Recipe | None = None
    num_importances: int | None = None
    report: ExportReport | CheckpointReport | None = None


def export_store(store: str | Path, options: ExportOptions, *, steps: ShowSteps = unseen) -> Exported:
    """Write what a store holds for other programs. Each file or folder appears only when it is whole.

    Raises:
        UnsupportedModelError: the format cannot hold this model, or its tokenizer.
        StoreError: the store cannot be used.
        ConversionError: a file exists, or the disk is full.
        RequestError: no such type, or the trace is of another model.
        TraceError: the trace is damaged, or none.
    """
    store = Path(store)
    recipe, num_importances = None, None
    report: ExportReport | CheckpointReport | None = None
    if options.recipe is not None:
        recipe = make_recipe(open_store(store))
        write_recipe(recipe, Path(options.recipe))
    if options.imatrix is not None and options.trace is not None:
        num_importances = _write_imatrix(store, Path(options.imatrix), Path(options.trace), options, steps)
    if options.out is not None:
        out = Path(options.out)
        with steps(f"exporting to {out.name}", "bytes") as advance:
            if options.to == "gguf":
                report = export_gguf(
                    store, out, block_type=options.block_type, overwrite=options.overwrite, progress=advance
                )
            else:
                report = export_checkpoint(
                    store, out, type_name=options.block_type, overwrite=options.overwrite, progress=advance
                )
    return Exported(recipe, num_importances, report)


def _write_imatrix(store: Path, path: Path, trace: Path, options: ExportOptions, steps: ShowSteps) -> int:
    opened = open_store(store)
    inputs = read_inputs(trace, read_spec(opened.config))
    with steps(f"writing {path.name}", "experts") as advance:
        return write_imatrix(
            opened, inputs, path, source=trace.name, overwrite=options.overwrite, progress=advance
        )
