"""``edgemoe get``: a model of the Hugging Face Hub becomes a store, by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, MemoryOption, NoMtpOption
from edgemoe.cli.output import new_table, print_json, print_table, quoted, say, show_steps
from edgemoe.cli.widths import UniformArguments

if TYPE_CHECKING:
    from edgemoe.workflows.get import Fetched


@with_groups
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Model on the Hub: org/model, org/model@revision or org/model:file.gguf."
        ),
    ],
    uniform: UniformArguments,
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
    from edgemoe.workflows.get import GetOptions, get_model, look_at_model

    options = GetOptions(
        bits=uniform.bits,
        dense_bits=uniform.dense_bits,
        out=out,
        memory=memory,
        keeps_mtp=not no_mtp,
    )
    say(f"looking at {name} ...")
    if is_dry_run:
        found = look_at_model(name, options)
        if as_json:
            print_json({"store": str(found.store), **found.outlook.to_json()})
        else:
            _show(found)
        return
    looked = None if as_json else _show
    found = get_model(name, options, steps=show_steps, tell=say, looked=looked)
    if as_json:
        assert found.report is not None
        print_json({**found.report.to_json(), "outlook": found.outlook.to_json()})
        return
    say("next: " + quoted("edgemoe", "run", found.name, "Once upon a time"))


def _show(found: Fetched) -> None:
    from edgemoe.units import format_size

    outlook = found.outlook
    say(f"{outlook.family}: {outlook.num_layers} layers, {outlook.num_experts} experts; supported")
    say(
        f"{format_size(outlook.source_bytes)} are fetched, the store takes {format_size(outlook.store_bytes)}"
    )
    say(f"store: {found.store}; converting takes up to {format_size(outlook.converting_bytes)} of memory")
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
