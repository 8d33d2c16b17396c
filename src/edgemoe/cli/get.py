"""``edgemoe get``: a model of the Hugging Face Hub becomes a store, by its name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, MemoryOption, NoMtpOption
from edgemoe.cli.output import byte_progress, new_table, print_json, print_table, quoted, say
from edgemoe.cli.widths import UniformWidths
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.checkpoint import CheckpointSource, HubName
    from edgemoe.convert.outlook import Outlook
    from edgemoe.quant import BitPlan


@with_groups
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Model on the Hub: org/model, org/model@revision or org/model:file.gguf."
        ),
    ],
    uniform: UniformWidths,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="STORE", help="Store to make.  [default: by name, in your library]"
        ),
    ] = None,
    memory: MemoryOption = None,
    no_mtp: NoMtpOption = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it is, how large and how fast it would be.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Fetch a model from the Hugging Face Hub and convert it on the way.

    First it says whether the model is supported, how much is fetched, how large the store will be, which
    memory it needs and how fast it would be on this machine. Weights are fetched piece by piece and packed at
    once: the disk holds the store and nothing else. Stopped half-way, the same command goes on.

    Tokens for private and gated models, mirrors (HF_ENDPOINT) and offline mode are those of the Hub's own
    tools: hf auth login. The library is in your data folder, or below EDGEMOE_HOME.

    \b
    edgemoe get Qwen/Qwen3-30B-A3B --dry-run
    edgemoe get Qwen/Qwen3-30B-A3B --bits 4 --memory 8GiB
    edgemoe get unsloth/Qwen3-30B-A3B-GGUF:Qwen3-30B-A3B-Q4_K_M.gguf
    edgemoe run Qwen3-30B-A3B --memory 8GiB -p "Why is the sky blue?"
    """
    from edgemoe.checkpoint import open_hub, parse_hub_name
    from edgemoe.convert import convert
    from edgemoe.store.library import library_folder

    hub_name = parse_hub_name(name)
    if hub_name is None:
        raise RequestError(f"{name!r} is no name of a model on the Hub; give organisation/model")
    place = out or library_folder() / _store_name(hub_name)
    if place.exists() and not is_dry_run:
        raise RequestError(f"{place} exists; run it, remove it, or choose another place with --out")
    say(f"looking at {hub_name} ...")
    source = open_hub(hub_name)
    try:
        plan = uniform.plan(source, is_gguf=hub_name.file is not None)
        outlook = _look(source, plan, memory, place, keeps_mtp=not no_mtp)
        if not as_json:
            _show(outlook, place)
        if is_dry_run:
            if as_json:
                print_json({"store": str(place), **outlook.to_json()})
            return
        _check_room(place, outlook.store_bytes)
        place.parent.mkdir(parents=True, exist_ok=True)
        with byte_progress(f"fetching and converting {hub_name.repo}") as advance:
            report = convert(source, place, plan, keeps_mtp=not no_mtp, progress=advance, tell=say)
    finally:
        source.close()
    if as_json:
        print_json({**report.to_json(), "outlook": outlook.to_json()})
        return
    shown = place if out is not None else _store_name(hub_name)
    say("next: " + quoted("edgemoe", "run", shown, "Once upon a time"))


def _store_name(name: HubName) -> str:
    if name.file is None:
        return name.repo
    return f"{name.repo.split('/')[0]}/{Path(name.file).stem}"


def _look(
    source: CheckpointSource, plan: BitPlan, memory: str | None, place: Path, *, keeps_mtp: bool
) -> Outlook:
    from edgemoe.bench import measure_memory, measure_storage
    from edgemoe.convert.outlook import look_ahead
    from edgemoe.units import parse_size

    existing = place.absolute()
    while not existing.exists():
        existing = existing.parent
    speed = measure_storage(existing if existing.is_dir() else existing.parent).bytes_per_s
    budgets = () if memory is None else (parse_size(memory),)
    return look_ahead(source, plan, measure_memory(), speed, budgets, keeps_mtp=keeps_mtp)


def _show(outlook: Outlook, place: Path) -> None:
    from edgemoe.units import format_size

    say(f"{outlook.family}: {outlook.num_layers} layers, {outlook.num_experts} experts; supported")
    say(
        f"{format_size(outlook.source_bytes)} are fetched, the store takes {format_size(outlook.store_bytes)}"
    )
    say(f"store: {place}; converting takes up to {format_size(outlook.converting_bytes)} of memory")
    table = new_table(
        "what it would give", "--memory", "experts in memory", "read per token", "tokens/s, about"
    )
    for row in outlook.budgets:
        table.add_row(
            format_size(row.budget_bytes),
            f"{row.resident_share:.0%}",
            format_size(row.speed.read_bytes),
            f"{row.speed.tokens_per_s:.2g}",
        )
    print_table(table)


def _check_room(place: Path, num_bytes: int) -> None:
    from edgemoe.errors import ConversionError
    from edgemoe.units import format_size

    existing = place.absolute()
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    partial = place.with_name(f"{place.name}.partial")
    done = sum(f.stat().st_blocks * 512 for f in partial.iterdir()) if partial.is_dir() else 0
    if free_bytes + done < num_bytes:
        raise ConversionError(
            f"{existing}: {format_size(free_bytes)} are free, the store takes {format_size(num_bytes)};"
            " choose another place with --out, or fewer --bits"
        )
