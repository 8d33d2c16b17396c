"""A conversion from beginning to end: written tensor by tensor, resumed, reported."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemoe.checkpoint import CheckpointSource, open_checkpoint
from edgemoe.convert.conversion import Conversion
from edgemoe.convert.examine import TOKENIZER
from edgemoe.convert.experts_only import ExpertConversion, ExpertTensors
from edgemoe.progress import Progress, Tell
from edgemoe.quant import BitPlan, ExpertInputs
from edgemoe.store import StoreWriter


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did; sizes in bytes.

    ``has_restarted``: what another conversion to the same place had left unfinished was thrown away.
    ``num_matrices``: how many became what, by "stored type → format".
    ``rounding``: relative root-mean-square change of the weights by "stored type → format", measured on some
    rows of each matrix that this run has packed; 0 where none changes.
    ``is_rounded_for_inputs``: experts were rounded for their outputs on a text.
    ``passed_over``: parts of the checkpoint that are not run, towers for images for example, with the number
    of their tensors. ``notes``: what a user should know.
    """

    path: str
    num_bytes: int
    num_resumed_bytes: int
    has_restarted: bool
    num_experts: int
    expert_bits_per_weight: float
    has_tokenizer: bool
    num_matrices: dict[str, int]
    rounding: dict[str, float]
    is_rounded_for_inputs: bool
    passed_over: dict[str, int]
    notes: tuple[str, ...]
    elapsed_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def convert(
    source: CheckpointSource | str | Path,
    out: str | Path,
    plan: BitPlan,
    *,
    inputs: ExpertInputs | None = None,
    keeps_mtp: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> ConversionReport:
    """Write the store of a checkpoint at the formats of a plan.

    A layer that predicts further tokens is stored too unless ``keeps_mtp`` is false.
    Experts of 2 to 6 bits are rounded for ``inputs``, if given: what they are fed on a text.
    ``progress(done, total)`` is called in bytes of the store. Interrupted at any point, the same call
    goes on where it ended; the folder ``out`` appears only when it is complete. ``tell`` is given
    the report's ``notes`` one by one, before the work.

    Raises:
        CheckpointError: the checkpoint is damaged or not supported.
        ConversionError: ``out`` exists, the disk is full, or another conversion writes there.
    """
    started = time.monotonic()
    if not isinstance(source, str | Path):
        conversion = Conversion(source, plan, inputs, keeps_mtp=keeps_mtp)
        return _convert(conversion, Path(out), overwrite, progress, tell, started)
    opened = open_checkpoint(source)
    try:
        conversion = Conversion(opened, plan, inputs, keeps_mtp=keeps_mtp)
        return _convert(conversion, Path(out), overwrite, progress, tell, started)
    finally:
        opened.close()


def convert_experts(
    source: CheckpointSource,
    tensors: ExpertTensors,
    out: str | Path,
    plan: BitPlan,
    *,
    keeps_exact: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write the store of a checkpoint's experts alone; see experts_only.py.

    ``keeps_exact``: matrices in blocks that a format holds value for value stay as they are, whatever the
    plan says. Resumes and raises as ``convert``.
    """
    conversion = ExpertConversion(source, tensors, plan, keeps_exact)
    return _convert(conversion, Path(out), overwrite, progress, None, time.monotonic())


def _convert(
    conversion: Conversion | ExpertConversion,
    out: Path,
    overwrite: bool,
    progress: Progress | None,
    tell: Tell | None,
    started: float,
) -> ConversionReport:
    layout = conversion.layout
    if tell is not None:
        for note in conversion.notes:
            tell(note)
    with StoreWriter(out, layout, conversion.identity(), overwrite) as writer:
        done = 0
        for name, num_bytes, chunks in conversion.tensors():
            if name not in writer.checksums:
                writer.write(name, chunks)
            done += num_bytes
            if progress is not None:
                progress(done, layout.num_bytes)
        report = finish_store(conversion, writer, out, started)
    if progress is not None:
        progress(layout.num_bytes, layout.num_bytes)
    return report


def finish_store(
    conversion: Conversion | ExpertConversion, writer: StoreWriter, out: Path, started: float
) -> ConversionReport:
    """Give a store its name, all of whose tensors are written; ``started`` by time.monotonic."""
    side_files, layout = conversion.side_files(), conversion.layout
    writer.finish(conversion.manifest(writer, side_files), side_files)
    return ConversionReport(
        path=str(out),
        num_bytes=layout.num_bytes + sum(map(len, side_files.values())),
        num_resumed_bytes=writer.num_resumed_bytes,
        has_restarted=writer.has_restarted,
        num_experts=len(layout.experts),
        expert_bits_per_weight=conversion.expert_bits_per_weight(),
        has_tokenizer=TOKENIZER in side_files,
        num_matrices=conversion.num_matrices(),
        rounding=conversion.rounding(),
        is_rounded_for_inputs=conversion.has_inputs,
        passed_over=conversion.passed_over,
        notes=conversion.notes,
        elapsed_s=time.monotonic() - started,
    )
