"""``edgemoe get``: a model of the Hugging Face Hub becomes a store, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, NoMtpOption, unset
from edgemoe.cli.output import new_table, print_json, print_table, quoted, say, show_steps
from edgemoe.cli.widths import UniformArguments

if TYPE_CHECKING:
    from edgemoe.workflows.get import Fetched, GetOptions


@dataclass(frozen=True)
class FetchArguments:
    """Where the store goes, what of the model it keeps, and the budget that the outlook is for."""

    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="STORE", help="Store to make.  [default: NAME in your library]"),
    ] = None
    memory: Annotated[
        str | None,
        unset(
            "--memory",
            "SIZE",
            "Memory budget to forecast the speed for, such as 8GiB.  [default: several budgets]",
        ),
    ] = None
    no_mtp: NoMtpOption = False

    def options(self, uniform: UniformArguments) -> GetOptions:
        """As fetching takes them, with the widths."""
        from edgemoe.workflows.get import GetOptions

        return GetOptions(uniform.bits, uniform.dense_bits, self.out, self.memory, keeps_mtp=not self.no_mtp)


@with_groups
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Model on the Hub: org/model, org/model@revision, org/model:Q4_K_M or org/model:file.gguf.",
        ),
    ],
    uniform: UniformArguments,
    fetch: FetchArguments,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how large the model is and how fast it would be here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Download a model from the Hugging Face Hub and convert it as it arrives.

    The command first says whether the model is supported, how much is downloaded, how large the store will
    be, how much memory it needs and how fast it would be on this machine. Weights arrive piece by piece and
    are packed at once, so the disk needs room for the store alone. After an interruption the same command
    continues.

    Private and gated models, mirrors (HF_ENDPOINT) and offline mode work as in the Hub's own tools; log in
    with: hf auth login. The library is in your data folder, or below EDGEMOE_HOME if that is set.

    \b
    edgemoe get Qwen/Qwen3-30B-A3B --dry-run
    edgemoe get Qwen/Qwen3-30B-A3B --bits 4 --memory 8GiB
    edgemoe get unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M
    edgemoe run Qwen/Qwen3-30B-A3B --memory 8GiB --chat "Why is the sky blue?"
    """
    from edgemoe.workflows.get import get_model, look_at_model

    options = fetch.options(uniform)
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
