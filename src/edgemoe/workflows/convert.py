"""A checkpoint becomes a store: ``convert_model``, and ``estimate_store`` for what it would take."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from edgemoe.calib.widths import CalibrationOptions, choose_widths
from edgemoe.calib.widths.calibration import TRACE
from edgemoe.checkpoint import is_gguf
from edgemoe.convert import ConversionReport, StoreEstimate, convert, convert_in_parts, estimate
from edgemoe.errors import RequestError
from edgemoe.executors import LOCAL, ExecutorOptions, Here, find_executor
from edgemoe.progress import ShowSteps, Tell, unheard, unseen
from edgemoe.quant import BitPlan, format_for_bits, read_plan
from edgemoe.store.format import MANIFEST_FILE
from edgemoe.workflows.plan import describe_choice
from edgemoe.workflows.widths import UniformWidths, check_trace, find_inputs, read_goal, trace_beside


@dataclass(frozen=True)
class ConvertOptions:
    """How a checkpoint is converted; checked when it is made.

    Widths are one of: ``bits`` and ``dense_bits`` (see UniformWidths); ``plan``, a file that ``plan_widths``
    has written; or a goal that is reached by measuring on ``texts`` (contents by name): ``tolerance``, a rise
    of perplexity such as "2%", or ``size`` of all experts. ``trace`` is what experts of 2 to 6 bits are
    rounded for; by default that of the plan, or of the texts. ``keeps_mtp``: a layer that predicts further
    tokens is stored too.

    ``executor`` says where the work runs (docs/choosing-bits.md#more-than-one-machine); its ``memory_bytes``
    is what each worker may take, and what measuring may take in this process.

    Raises:
        RequestError: options that do not go together, or no such width.
    """

    bits: str | int | None = None
    dense_bits: str | int | None = None
    plan: str | Path | None = None
    trace: str | Path | None = None
    tolerance: str | None = None
    size: str | int | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    keeps_mtp: bool = True
    overwrite: bool = False
    executor: ExecutorOptions = LOCAL

    def __post_init__(self) -> None:
        UniformWidths(self.bits, self.dense_bits)
        if self.texts and not self.has_goal:
            raise RequestError(
                "--text is what --tolerance and --size measure on; give one of them, or --trace"
            )
        if self.plan is not None and (self.bits is not None or self.dense_bits is not None):
            raise RequestError("--plan has the widths already; leave out --bits and --dense-bits")
        if self.has_goal:
            self._check_goal()

    def _check_goal(self) -> None:
        if self.plan is not None or self.trace is not None:
            raise RequestError(
                "--tolerance and --size choose the widths and trace the text themselves;"
                " leave out --plan and --trace"
            )
        if not self.texts:
            raise RequestError("--tolerance and --size measure on text; give some with --text FILE")
        if self.bits is not None:
            raise RequestError("--tolerance and --size choose the widths themselves; leave out --bits")
        read_goal(self.tolerance, self.size, None)

    @property
    def has_goal(self) -> bool:
        """Whether widths are to be measured."""
        return self.tolerance is not None or self.size is not None


def convert_model(
    source: str | Path,
    out: str | Path,
    options: ConvertOptions | None = None,
    *,
    steps: ShowSteps = unseen,
    tell: Tell = unheard,
) -> ConversionReport:
    """Write the store ``out`` of a Hugging Face folder or a GGUF file.

    Memory stays at a few experts, however large the model. ``steps`` shows progress, ``tell`` takes what
    people should know. Interrupted at any point, the same call goes on, with any executor; ``out`` appears
    only when it is complete, and has the same bytes whatever the executor.

    Raises:
        CheckpointError: the checkpoint is damaged or not supported.
        ConversionError: ``out`` exists, the disk is full, or another conversion writes there.
        PlanError: nothing reaches the goal.
        RequestError: ``source`` is a store, or a plan and a trace do not belong together.
        WorkerError: a worker of the executor failed.
    """
    options = options or ConvertOptions()
    source, out = Path(source), Path(out)
    _check_places(source, out)
    if not options.has_goal:
        plan, trace = _given_widths(source, options)
        return _write(source, out, plan, trace, options, steps, tell)
    if out.exists() and not options.overwrite:
        raise RequestError(f"{out} exists; choose another place or give --overwrite")
    work = out.with_name(f"{out.name}.work")
    plan = _measured_widths(source, work, options, steps, tell)
    report = _write(source, out, plan, work / TRACE, options, steps, tell)
    shutil.rmtree(work)
    return report


def estimate_store(source: str | Path, options: ConvertOptions | None = None) -> StoreEstimate:
    """What the store of a checkpoint would take; nothing is written.

    Raises:
        CheckpointError: the checkpoint is not one we can run.
        RequestError: the widths are to be measured first; or as ``convert_model``.
    """
    options, source = options or ConvertOptions(), Path(source)
    if options.has_goal:
        raise RequestError("--tolerance and --size measure first; leave out --dry-run")
    _refuse_store(source)
    plan, trace = _given_widths(source, options)
    check_trace(plan, trace)
    return estimate(source, plan, keeps_mtp=options.keeps_mtp)


def _check_places(source: Path, out: Path) -> None:
    _refuse_store(source)
    if out.name in ("", ".."):
        raise RequestError(f"{out} is no name for a new folder; give one such as model.store")


def _refuse_store(source: Path) -> None:
    if (source / MANIFEST_FILE).is_file():
        raise RequestError(f"{source} is a store already; give the checkpoint that it was made from")


def _given_widths(source: Path, options: ConvertOptions) -> tuple[BitPlan, Path | None]:
    """The plan of a file, or of uniform widths, and the trace that experts are rounded for, if any."""
    trace = None if options.trace is None else Path(options.trace)
    if options.plan is None:
        uniform = UniformWidths(options.bits, options.dense_bits)
        return uniform.plan(source, is_gguf=is_gguf(source)), trace
    file = Path(options.plan)
    beside = trace_beside(file)
    return read_plan(file), trace or (beside if beside.exists() else None)


def _measured_widths(
    source: Path, work: Path, options: ConvertOptions, steps: ShowSteps, tell: Tell
) -> BitPlan:
    """The plan that reaches the goal; ``work`` becomes a profile, whose trace it was measured with."""
    dense = None if options.dense_bits is None else format_for_bits(options.dense_bits)
    calibration = CalibrationOptions(dense_format=dense, budget_bytes=options.executor.memory_bytes)
    goal = read_goal(options.tolerance, options.size, None)
    executor = find_executor(options.executor)
    chosen = choose_widths(source, options.texts, goal, work, calibration, steps=steps, executor=executor)
    for line in describe_choice(chosen):
        tell(line)
    return chosen.plan


def _write(
    source: Path,
    out: Path,
    plan: BitPlan,
    trace: Path | None,
    options: ConvertOptions,
    steps: ShowSteps,
    tell: Tell,
) -> ConversionReport:
    plan = replace(plan, origin={**plan.origin, "source": source.absolute().name})
    check_trace(plan, trace)
    inputs = None if trace is None else partial(find_inputs, source.absolute(), plan, trace.absolute())
    executor = find_executor(_with_memory(options, source, plan, has_inputs=inputs is not None))
    keeps_mtp, overwrite = options.keeps_mtp, options.overwrite
    with steps(f"converting to {out.name}", "bytes") as advance:
        if isinstance(executor, Here):
            return convert(
                source,
                out,
                plan,
                inputs=None if inputs is None else inputs(),
                keeps_mtp=keeps_mtp,
                overwrite=overwrite,
                progress=advance,
                tell=tell,
            )
        (report,) = convert_in_parts(
            source.absolute(),
            {out.absolute(): plan},
            executor,
            find_inputs=inputs,
            keeps_mtp=keeps_mtp,
            overwrite=overwrite,
            progress=advance,
            tell=tell,
        )
        return report


def _with_memory(
    options: ConvertOptions, source: Path, plan: BitPlan, *, has_inputs: bool
) -> ExecutorOptions:
    """The executor with what a worker takes, where nobody has said it."""
    executor = options.executor
    if executor.memory_bytes is not None or executor == LOCAL:
        return executor
    found = estimate(source, plan, keeps_mtp=options.keeps_mtp, has_inputs=has_inputs)
    return replace(executor, memory_bytes=found.converting_bytes)
