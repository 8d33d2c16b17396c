"""Which bit widths a store gets: one for all experts, those of a plan, or those that reach a goal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgemoe.calib.widths import Goal, TraceInputs, read_inputs
from edgemoe.calib.widths.quality import PERPLEXITY, Metric
from edgemoe.checkpoint import CheckpointSource, open_checkpoint
from edgemoe.convert import plan_as_stored
from edgemoe.errors import RequestError
from edgemoe.models import read_spec
from edgemoe.quant import BitPlan, format_for_bits, refines
from edgemoe.units import parse_size


@dataclass(frozen=True)
class UniformWidths:
    """One width for all experts and one for all other matrices: 2, 3, 4, 6, 8, "t2", "t3", "bf16", "f16",
    "f32".

    None: as stored where a format holds that value for value, else 4 and 8 bits.

    Raises:
        RequestError: there is no such width.
    """

    bits: str | int | None = None
    dense_bits: str | int | None = None

    def __post_init__(self) -> None:
        for bits in (self.bits, self.dense_bits):
            if bits is not None:
                format_for_bits(bits)

    def plan(self, source: CheckpointSource | Path, *, is_gguf: bool) -> BitPlan:
        """The plan that they mean for a checkpoint.

        Raises:
            CheckpointError: it is not one we can run.
        """
        usual = BitPlan.uniform(format_for_bits(self.bits or "4"), format_for_bits(self.dense_bits or "8"))
        if self.bits is not None and self.dense_bits is not None:
            return usual
        plan = plan_as_stored(source, None if is_gguf else usual)
        if self.bits is not None:
            plan = replace(plan, default=usual.default, overrides={})
        if self.dense_bits is not None:
            plan = replace(plan, dense=usual.dense, dense_overrides={})
        return plan


def read_goal(
    tolerance: str | None, size: str | int | None, bits: float | None, metric: Metric = PERPLEXITY
) -> Goal:
    """What a plan is to reach: one of a loss such as "2%", a size of all experts, and bits per weight.

    Raises:
        RequestError: none is given, or several; or it is no such number.
    """
    if sum(value is not None for value in (tolerance, size, bits)) != 1:
        raise RequestError("say what to reach: one of --tolerance, --size and --bits")
    if tolerance is None:
        return Goal(num_bytes=None if size is None else parse_size(size), bits_per_weight=bits)
    is_share = metric.unit == "%"
    try:
        limit = float(tolerance.removesuffix("%")) / 100 if is_share else float(tolerance)
    except ValueError:
        limit = -1.0
    if not 0 < limit < 10:
        example = "a rise of perplexity such as 2%" if is_share else "nats per token such as 0.01"
        raise RequestError(f"--tolerance {tolerance!r}: give {example}")
    return Goal(tolerance=limit)


def trace_beside(plan: Path) -> Path:
    """Where a plan's trace lies."""
    return plan.with_name(f"{plan.name}.trace")


def find_inputs(source: Path, plan: BitPlan, trace: Path) -> TraceInputs:
    """What the experts of a checkpoint are rounded for, in any process: the trace that the plan was measured
    with.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        RequestError: the trace is of another model, or not the one that the plan was measured with.
        TraceError: the folder is no trace, or is damaged.
    """
    opened = open_checkpoint(source)
    try:
        inputs = read_inputs(trace, read_spec(opened.config()))
    finally:
        opened.close()
    if plan.origin.get("inputs") not in (None, inputs.identity):
        raise RequestError(f"{trace} is not the trace that the plan was measured with; give that one")
    return inputs


def check_trace(plan: BitPlan, trace: Path | None) -> None:
    """Refuse a plan without the trace that it needs, and a trace that nothing is rounded for.

    Raises:
        RequestError: saying so.
    """
    if trace is None and plan.origin.get("inputs") is not None:
        raise RequestError(
            "the plan was measured with weights rounded for a trace; give it with --trace FOLDER"
        )
    if trace is not None and not refines(plan):
        raise RequestError("--trace is for experts of 2 to 6 bits; leave it out or choose fewer bits")
