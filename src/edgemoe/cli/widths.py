"""The options that say which bit widths a store gets, and the plans that they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import read_texts
from edgemoe.cli.output import count_progress, say
from edgemoe.cli.plan import TRACE, describe, read_goal, trace_beside
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.checkpoint import CheckpointSource
    from edgemoe.quant import BitPlan, ExpertInputs


@dataclass(frozen=True)
class UniformWidths:
    """One width for all experts, one for all other matrices; None: as stored where a format holds that."""

    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="2|3|4|6|8|t2|t3|bf16|f16|f32",
            help="Width of the expert weights; t2 and t3 are 2.1 and 3.1 bits."
            "  [default: as stored in GGUF, MXFP4 and NVFP4, else 4]",
            show_default=False,
        ),
    ] = None
    dense_bits: Annotated[
        str | None,
        typer.Option(
            "--dense-bits",
            metavar="2|3|4|6|8|bf16|f16|f32",
            help="Width of all other matrices: attention, embedding, head."
            "  [default: as stored in GGUF, else 8]",
            show_default=False,
        ),
    ] = None

    def plan(self, source: CheckpointSource | Path, *, is_gguf: bool) -> BitPlan:
        """The plan that they mean for a checkpoint."""
        from edgemoe.convert import plan_as_stored
        from edgemoe.quant import BitPlan, format_for_bits

        usual = BitPlan.uniform(format_for_bits(self.bits or "4"), format_for_bits(self.dense_bits or "8"))
        if self.bits is not None and self.dense_bits is not None:
            return usual
        plan = plan_as_stored(source, None if is_gguf else usual)
        if self.bits is not None:
            plan = replace(plan, default=usual.default, overrides={})
        if self.dense_bits is not None:
            plan = replace(plan, dense=usual.dense, dense_overrides={})
        return plan


@dataclass(frozen=True)
class MeasuredWidths:
    """A width for every expert, by measurement, made before or now; and what experts are rounded for."""

    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Widths of every expert, as plan chose them.", show_default=False
        ),
    ] = None
    tolerance: Annotated[
        str | None,
        typer.Option(
            "--tolerance",
            metavar="P%",
            help="Smallest widths within this rise of perplexity.",
            show_default=False,
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="SIZE", help="Best widths with experts of this size.", show_default=False
        ),
    ] = None
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="UTF-8 text that --tolerance and --size measure on; may be given again.",
            show_default=False,
        ),
    ] = None
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FOLDER",
            help="Round 2 to 6 bits for the inputs that this trace, or profile, of the model holds."
            "  [default: PLAN.trace, where there is one]",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.texts and not self.has_goal:
            raise RequestError(
                "--text is what --tolerance and --size measure on; give one of them, or --trace"
            )
        if self.has_goal and not (self.plan_file is None and self.trace is None):
            raise RequestError(
                "--tolerance and --size choose the widths and trace the text themselves;"
                " leave out --plan and --trace"
            )
        if self.has_goal and not self.texts:
            raise RequestError("--tolerance and --size measure on text; give some with --text FILE")

    @property
    def has_goal(self) -> bool:
        """Whether widths are to be measured now."""
        return self.tolerance is not None or self.size is not None

    def search(self, source: Path, work: Path, uniform: UniformWidths) -> tuple[BitPlan, Path | None]:
        """The plan that reaches the goal, and the trace it was measured with; ``work`` becomes a profile."""
        from edgemoe.calib.widths import CalibrationOptions, choose_widths
        from edgemoe.quant import format_for_bits

        if uniform.bits is not None:
            raise RequestError("--tolerance and --size choose the widths themselves; leave out --bits")
        dense = uniform.dense_bits
        options = CalibrationOptions(dense_format=None if dense is None else format_for_bits(dense))
        goal, texts = read_goal(self.tolerance, self.size, None), read_texts(self.texts or ())
        chosen = choose_widths(source, texts, goal, work, options, steps=count_progress)
        for line in describe(chosen):
            say(line)
        return chosen.plan, work / TRACE

    def read(self, source: Path, uniform: UniformWidths) -> tuple[BitPlan, Path | None]:
        """The plan of a file, or of uniform widths, and the trace that experts are rounded for, if any."""
        from edgemoe.checkpoint import is_gguf
        from edgemoe.quant import read_plan

        if self.plan_file is None:
            return uniform.plan(source, is_gguf=is_gguf(source)), self.trace
        if uniform.bits is not None or uniform.dense_bits is not None:
            raise RequestError("--plan has the widths already; leave out --bits and --dense-bits")
        beside = trace_beside(self.plan_file)
        return read_plan(self.plan_file), self.trace or (beside if beside.exists() else None)


def read_inputs_for(source: Path, plan: BitPlan, trace: Path | None) -> ExpertInputs | None:
    """What the experts are to be rounded for: the trace that the plan was measured with, if there was one."""
    from edgemoe.calib.widths import read_inputs
    from edgemoe.checkpoint import open_checkpoint
    from edgemoe.models import read_spec
    from edgemoe.quant import refines

    wanted = plan.origin.get("inputs")
    if trace is None:
        if wanted is not None:
            raise RequestError(
                "the plan was measured with weights rounded for a trace; give it with --trace FOLDER"
            )
        return None
    if not refines(plan):
        raise RequestError("--trace is for experts of 2 to 6 bits; leave it out or choose fewer bits")
    opened = open_checkpoint(source)
    try:
        spec = read_spec(opened.config())
    finally:
        opened.close()
    inputs = read_inputs(trace, spec)
    if wanted not in (None, inputs.identity):
        raise RequestError(f"{trace} is not the trace that the plan was measured with; give that one")
    return inputs
