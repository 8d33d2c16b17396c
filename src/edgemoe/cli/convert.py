"""``edgemoe convert``: a checkpoint becomes a store."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import JsonOption, read_texts
from edgemoe.cli.output import byte_progress, count_progress, print_json, quoted, say
from edgemoe.cli.plan import TRACE, describe, read_goal, trace_beside
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.calib.widths import Goal
    from edgemoe.convert import ConversionReport, StoreEstimate
    from edgemoe.quant import BitPlan, ExpertInputs


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Hugging Face folder (config.json and safetensors) or GGUF file."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Store to make; a new folder.")],
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="2|3|4|6|8|t2|t3|bf16|f16|f32",
            help="Width of the expert weights; t2 and t3 are 2.1 and 3.1 bits."
            "  [default: as stored in GGUF and MXFP4, else 4]",
            show_default=False,
        ),
    ] = None,
    dense_bits: Annotated[
        str | None,
        typer.Option(
            "--dense-bits",
            metavar="2|3|4|6|8|bf16|f16|f32",
            help="Width of all other matrices: attention, embedding, head."
            "  [default: as stored in GGUF, else 8]",
            show_default=False,
        ),
    ] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Widths of every expert, as plan chose them.", show_default=False
        ),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            "--tolerance",
            metavar="P%",
            help="Smallest widths within this rise of perplexity.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="SIZE", help="Best widths with experts of this size.", show_default=False
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="UTF-8 text that --tolerance and --size measure on; may be given again.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FOLDER",
            help="Round 2 to 6 bits for the inputs that this trace, or profile, of the model holds."
            "  [default: PLAN.trace, where there is one]",
            show_default=False,
        ),
    ] = None,
    experts_only: Annotated[
        bool,
        typer.Option(
            "--experts-only",
            help="Keep the experts alone, for a model that transformers runs; of any type that it knows.",
        ),
    ] = False,
    overwrites: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it is a store already.")
    ] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how large the store would be.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Turn a checkpoint into a store.

    Memory stays at a few experts, however large the model. Stopped half-way (Ctrl-C, power cut),
    the same command goes on where it was. OUT appears only when it is complete.

    A GGUF file keeps every weight as it is, its blocks only rearranged, unless --bits or --plan says
    otherwise; so do experts in MXFP4. Block types that no format holds (IQ1, IQ2, IQ3, TQ) take the next
    width, and what that costs is reported. Of a split file name any part.

    With --trace the experts' codes are chosen together, for the least change of their outputs on the inputs
    that edgemoe trace has recorded from any store of the model; at 2 to 4 bits this saves most of a bit.

    --tolerance and --size choose a width for every expert by measuring, as edgemoe plan does, which has more
    options and keeps the plan.

    --experts-only is for models that transformers runs, with the experts in a store (docs/transformers.md).

    \b
    edgemoe convert ./OLMoE-1B-7B olmoe.store --bits 4
    edgemoe convert ./Mixtral-8x7B mixtral.store --bits 3 --dense-bits 6
    edgemoe convert ./Qwen3-30B-A3B qwen.store --bits 2 --dry-run
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    edgemoe convert olmoe-q4_k_m.gguf olmoe.store
    edgemoe convert ./OLMoE-1B-7B olmoe.store --bits 3 --trace olmoe.trace
    edgemoe convert ./OLMoE-1B-7B olmoe.store --tolerance 2% --text book.txt --text chat.txt
    edgemoe convert ./Qwen3-30B-A3B qwen-experts.store --experts-only --bits 4
    """
    import edgemoe.convert as conversion
    from edgemoe.store.format import MANIFEST_FILE

    if (source / MANIFEST_FILE).is_file():
        raise RequestError(f"{source} is a store already; give the checkpoint that it was made from")
    if out.name in ("", ".."):
        raise RequestError(f"{out} is no name for a new folder; give one such as model.store")
    if experts_only:
        if any(given is not None for given in (tolerance, size, trace, dense_bits, texts)) or is_dry_run:
            raise RequestError("--experts-only goes with --bits, --plan and --overwrite alone")
        _convert_experts(source, out, bits, plan_file, overwrites, as_json)
        return
    work = None
    if texts and tolerance is None and size is None:
        raise RequestError("--text is what --tolerance and --size measure on; give one of them, or --trace")
    if tolerance is not None or size is not None:
        if bits is not None or plan_file is not None or trace is not None or is_dry_run:
            raise RequestError(
                "--tolerance and --size choose the widths and trace the text themselves;"
                " leave out --bits, --plan, --trace, --dry-run"
            )
        if out.exists() and not overwrites:
            raise RequestError(f"{out} exists; choose another place or give --overwrite")
        if not texts:
            raise RequestError("--tolerance and --size measure on text; give some with --text FILE")
        work = out.with_name(f"{out.name}.work")
        plan = _search_plan(source, texts, read_goal(tolerance, size, None), work, dense_bits)
        trace = work / TRACE
    else:
        plan = _choose_plan(source, bits, dense_bits, plan_file)
        if trace is None and plan_file is not None and trace_beside(plan_file).exists():
            trace = trace_beside(plan_file)
    plan = replace(plan, origin={**plan.origin, "source": source.absolute().name})
    inputs = _read_inputs(source, plan, trace)
    if is_dry_run:
        _say_estimate(conversion.estimate(source, plan), out, as_json)
        return
    started = time.monotonic()
    with byte_progress(f"converting to {out.name}") as advance:
        report = conversion.convert(
            source, out, plan, inputs=inputs, overwrite=overwrites, progress=advance, tell=say
        )
    if work is not None:
        shutil.rmtree(work)
    elapsed_s = time.monotonic() - started
    if as_json:
        print_json({**report.to_json(), "elapsed_s": elapsed_s})
    else:
        _say_report(report, out, elapsed_s, is_rounded_for_inputs=inputs is not None)


def _search_plan(source: Path, texts: list[Path], goal: Goal, work: Path, dense_bits: str | None) -> BitPlan:
    from edgemoe.calib.widths import CalibrationOptions, choose_widths
    from edgemoe.quant import format_for_bits

    dense_format = None if dense_bits is None else format_for_bits(dense_bits)
    options = CalibrationOptions(dense_format=dense_format)
    chosen = choose_widths(source, read_texts(texts), goal, work, options, steps=count_progress)
    for line in describe(chosen):
        say(line)
    return chosen.plan


def _convert_experts(
    source: Path, out: Path, bits: str | None, plan_file: Path | None, overwrites: bool, as_json: bool
) -> None:
    from edgemoe.integrations.transformers import convert_experts
    from edgemoe.quant import read_plan

    if plan_file is not None and bits is not None:
        raise RequestError("--plan has the widths already; leave out --bits")
    plan = None if plan_file is None else read_plan(plan_file)
    with byte_progress(f"converting to {out.name}") as advance:
        report = convert_experts(source, out, bits, plan=plan, overwrite=overwrites, progress=advance)
    if as_json:
        print_json(report.to_json())
        return
    _say_report(report, out, report.elapsed_s, is_rounded_for_inputs=False, has_next=False)
    say("next: EdgeMoEConfig(store=...) in Python, as in docs/transformers.md")


def _choose_plan(source: Path, bits: str | None, dense_bits: str | None, plan_file: Path | None) -> BitPlan:
    from edgemoe.checkpoint import is_gguf
    from edgemoe.convert import plan_as_stored
    from edgemoe.quant import BitPlan, ExpertFormats, format_for_bits, read_plan

    if plan_file is not None:
        if bits is not None or dense_bits is not None:
            raise RequestError("--plan has the widths already; leave out --bits and --dense-bits")
        return read_plan(plan_file)
    usual = BitPlan.uniform(format_for_bits(bits or "4"), format_for_bits(dense_bits or "8"))
    plan = plan_as_stored(source, None if is_gguf(source) else usual)
    if bits is not None:
        plan = replace(plan, default=ExpertFormats.uniform(format_for_bits(bits)), overrides={})
    if dense_bits is not None:
        plan = replace(plan, dense=format_for_bits(dense_bits), dense_overrides={})
    return plan


def _read_inputs(source: Path, plan: BitPlan, trace: Path | None) -> ExpertInputs | None:
    """What the experts are to be rounded for: the trace that the plan was measured with, if there was one."""
    from edgemoe.calib.widths.inputs import read_inputs
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


def _say_report(
    report: ConversionReport,
    out: Path,
    elapsed_s: float,
    *,
    is_rounded_for_inputs: bool,
    has_next: bool = True,
) -> None:
    from edgemoe.units import format_duration, format_size

    if report.has_restarted:
        say("an unfinished conversion with another plan or source was there and has been discarded")
    if report.num_resumed_bytes:
        say(f"went on from an earlier run: {format_size(report.num_resumed_bytes)} were there")
    say(f"wrote {out}: {format_size(report.num_bytes)} in {format_duration(elapsed_s)}")
    for part, num_tensors in report.passed_over.items():
        say(f"passed over {part}: {num_tensors} tensors; text does not need them")
    for change, count in report.num_matrices.items():
        error = report.rounding.get(change)  # none where an earlier run has packed them all
        says = {None: "", 0.0: ", every weight as it was"}
        changed = f", weights changed by {error or 0:.2%} (root mean square, relative)"
        say(f"{change}: {count} matrices{says.get(error, changed)}")
    if is_rounded_for_inputs:
        say("experts were rounded for their outputs, which change less; their weights change more")
    if has_next:
        say("next: " + quoted("edgemoe", "run", out, "Once upon a time"))


def _say_estimate(estimate: StoreEstimate, out: Path, as_json: bool) -> None:
    from edgemoe.units import format_size

    free_bytes = shutil.disk_usage(_existing_parent(out)).free
    for note in estimate.notes:
        say(note)
    if as_json:
        print_json({**estimate.to_json(), "free_bytes": free_bytes})
        return
    print(f"experts  {format_size(estimate.expert_bytes):>12}")
    print(f"dense    {format_size(estimate.dense_bytes):>12}")
    print(f"store    {format_size(estimate.num_bytes):>12}   at {out}")
    print(f"free     {format_size(free_bytes):>12}")


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing_parent(path.parent)
