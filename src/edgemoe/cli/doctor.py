"""``edgemoe doctor``: what this machine can do, and which budget fits which store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import JsonOption
from edgemoe.cli.output import new_table, print_json, print_table, say

if TYPE_CHECKING:
    from edgemoe.workflows.doctor import MachineReport, StoreBudgets

READ_METHOD_NAMES = {
    "ring": "direct reads by io_uring",
    "direct": "direct reads on worker threads, as there is no io_uring",
    "buffered": "buffered reads, as this file system refuses direct ones",
}


def doctor(
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STORE", help="Stores or GGUF files to plan for.  [default: the demo]", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    r"""Measure this machine, and say which memory budgets fit a store.

    Storage is measured by direct reads of a temporary file beside the first store, or in this folder.

    \b
    edgemoe doctor
    edgemoe doctor qwen.store olmoe-q4_k_m.gguf
    """
    from edgemoe.workflows.doctor import examine_machine

    report = examine_machine(stores or (), tell=say)
    if as_json:
        print_json(report.to_json())
        return
    _print_machine(report)
    _print_stores(report.stores)


def _print_machine(report: MachineReport) -> None:
    from edgemoe.units import format_size

    machine, storage, source = report.machine, report.storage, report.energy_source
    limit = machine.cgroup_limit_bytes
    print(f"processor  {machine.cpu}, {machine.num_cpus} cores, {machine.num_threads} threads used")
    print(f"kernels    {machine.isa} of {', '.join(machine.available_isas)} (EDGEMOE_ISA forces one)")
    print(
        f"memory     {format_size(machine.available_memory_bytes)} free of"
        f" {format_size(machine.memory_bytes)}, cgroup limit {format_size(limit) if limit else 'none'},"
        f" reads at {format_size(report.memory_bytes_per_s)}/s"
    )
    how = "estimated, as no counter can be read" if source == "estimate" else f"from {source}"
    print(f"energy     {how}")
    if storage is None:
        print(f"storage    not measured at {report.folder}")
        return
    how = READ_METHOD_NAMES[storage.method]
    print(f"storage    {format_size(storage.bytes_per_s)}/s at {storage.folder}, {how}")


def _print_stores(stores: Sequence[StoreBudgets]) -> None:
    from edgemoe.units import format_size

    table = new_table(
        "budgets", "store", "smallest", "all in memory", "default now", "experts in memory then"
    )
    for store in stores:
        table.add_row(
            store.store,
            format_size(store.smallest_budget_bytes),
            format_size(store.resident_budget_bytes),
            format_size(store.default_budget_bytes),
            f"{store.default_resident_share:.0%}" if store.fits else "does not fit",
        )
    print_table(table)
