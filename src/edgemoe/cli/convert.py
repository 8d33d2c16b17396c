"""``edgemoe convert``: a checkpoint becomes a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.given import read_texts
from edgemoe.cli.groups import with_groups
from edgemoe.cli.measuring import WorkArguments
from edgemoe.cli.options import JsonOption, NoMtpOption, SourceArgument, unset
from edgemoe.cli.output import byte_progress, print_json, quoted, say, show_steps
from edgemoe.cli.widths import MeasuredArguments, UniformArguments
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.convert import ConversionReport, StoreEstimate
    from edgemoe.workflows.convert import ConvertOptions


@dataclass(frozen=True)
class ConvertArguments:
    """What is converted, within what memory, and whether a store may be replaced."""

    experts_only: Annotated[
        bool,
        typer.Option(
            "--experts-only",
            help="Convert only the experts, for a model that transformers runs; any type that it knows.",
        ),
    ] = False
    no_mtp: NoMtpOption = False
    memory: Annotated[
        str | None,
        unset(
            "--memory",
            "SIZE",
            "Memory that measuring, and each worker of --executor, may take, such as 8GiB."
            "  [default: what is free for measuring, what it needs for packing]",
        ),
    ] = None
    overwrites: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is already a store.")] = (
        False
    )

    def options(
        self, uniform: UniformArguments, measured: MeasuredArguments, work: WorkArguments
    ) -> ConvertOptions:
        """As the conversion takes them, with the widths and where the work runs."""
        from edgemoe.workflows.convert import ConvertOptions

        return ConvertOptions(
            bits=uniform.bits,
            dense_bits=uniform.dense_bits,
            plan=measured.plan_file,
            trace=measured.trace,
            tolerance=measured.tolerance,
            size=measured.size,
            texts=read_texts(measured.texts or ()),
            keeps_mtp=not self.no_mtp,
            overwrite=self.overwrites,
            executor=work.options(self.memory),
        )


@with_groups
def convert(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Store to make; a new folder.")],
    uniform: UniformArguments,
    measured: MeasuredArguments,
    work: WorkArguments,
    how: ConvertArguments,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how large the store would be.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Convert a model, from a Hugging Face folder or a GGUF file, into a store.

    Converting takes the memory of a few experts, however large the model is. After an interruption (Ctrl-C,
    power cut) the same command continues. OUT appears only when it is complete. --executor shares the work
    among processes or machines; the bytes of OUT are the same.

    Weights from a GGUF file, and those in MXFP4 or NVFP4, keep their exact values unless --bits or --plan
    asks for another width. If a GGUF file is split, name any of its parts.

    --trace takes a text that edgemoe trace has recorded from any store of the model, and rounds the experts
    so that their outputs on it change least. At 2 to 4 bits this is worth most of a further bit.

    --tolerance and --size measure which width each expert gets, as edgemoe plan does. Use edgemoe plan for
    more options and to keep the plan.

    If the model has a layer for further tokens, the store keeps it for --draft mtp. It takes about as much
    as one more layer; --no-mtp leaves it out.

    --experts-only is for models that transformers runs with their experts in a store (docs/transformers.md).

    \b
    edgemoe convert ./OLMoE-1B-7B olmoe.store --bits 4
    edgemoe convert ./Mixtral-8x7B mixtral.store --bits 3 --dense-bits 6
    edgemoe convert ./Qwen3-30B-A3B qwen.store --bits 2 --dry-run
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    edgemoe convert olmoe-q4_k_m.gguf olmoe.store
    edgemoe convert ./OLMoE-1B-7B olmoe.store --bits 3 --trace olmoe.trace
    edgemoe convert ./OLMoE-1B-7B olmoe.store --tolerance 2% --text book.txt --text chat.txt
    edgemoe convert ./Qwen3-30B-A3B qwen-experts.store --experts-only --bits 4
    edgemoe convert ./GLM-4.6 glm.store --bits 4 --executor local:4
    edgemoe convert ./GLM-4.6 glm.store --bits 4 --executor slurm:long --workers 8
    """
    from edgemoe.workflows.convert import convert_model, estimate_store

    if how.experts_only:
        own = ConvertArguments(experts_only=True, overwrites=how.overwrites)
        given = UniformArguments(uniform.bits), MeasuredArguments(measured.plan_file), WorkArguments(), own
        if (uniform, measured, work, how) != given or is_dry_run:
            raise RequestError("--experts-only goes with --bits, --plan and --overwrite alone")
        _convert_experts(source, out, uniform.bits, measured.plan_file, how.overwrites, as_json)
        return
    options = how.options(uniform, measured, work)
    if is_dry_run:
        _say_estimate(estimate_store(source, options), out, as_json)
        return
    report = convert_model(source, out, options, steps=show_steps, tell=say)
    if as_json:
        print_json(report.to_json())
    else:
        _say_report(report, out)


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
    _say_report(report, out, has_next=False)
    say("next: EdgeMoEConfig(store=...) in Python, as in docs/transformers.md")


def _say_report(report: ConversionReport, out: Path, *, has_next: bool = True) -> None:
    from edgemoe.units import format_duration, format_size

    if report.has_restarted:
        say("an unfinished conversion with another plan or source was there and has been discarded")
    if report.num_resumed_bytes:
        say(f"went on from an earlier run: {format_size(report.num_resumed_bytes)} were there")
    say(f"wrote {out}: {format_size(report.num_bytes)} in {format_duration(report.elapsed_s)}")
    for part, num_tensors in report.passed_over.items():
        say(f"passed over {part}: {num_tensors} tensors; text does not need them")
    for change, count in report.num_matrices.items():
        error = report.rounding.get(change)  # none where an earlier run has packed them all
        says = {None: "", 0.0: ", every weight as it was"}
        changed = f", weights changed by {error or 0:.2%} (root mean square, relative)"
        say(f"{change}: {count} matrices{says.get(error, changed)}")
    if report.is_rounded_for_inputs:
        say("experts were rounded for their outputs, which change less; their weights change more")
    if has_next:
        say("next: " + quoted("edgemoe", "run", out, "Once upon a time"))


def _say_estimate(estimate: StoreEstimate, out: Path, as_json: bool) -> None:
    from edgemoe.units import format_size
    from edgemoe.workflows.outputs import free_bytes

    free = free_bytes(out)
    for note in estimate.notes:
        say(note)
    if as_json:
        print_json({**estimate.to_json(), "free_bytes": free})
        return
    print(f"experts  {format_size(estimate.expert_bytes):>12}")
    print(f"dense    {format_size(estimate.dense_bytes):>12}")
    print(f"store    {format_size(estimate.num_bytes):>12}   at {out}")
    print(f"free     {format_size(free):>12}")
    print(f"memory   {format_size(estimate.converting_bytes):>12}   while converting, about")
