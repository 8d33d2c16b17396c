"""``edgemoe doctor``: what this machine can do, and which budget fits which store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import JsonOption
from edgemoe.cli.output import new_table, print_json, print_table, say
from edgemoe.errors import RequestError

READ_METHOD_NAMES = {
    "ring": "direct reads by io_uring",
    "direct": "direct reads on worker threads, as there is no io_uring",
    "buffered": "buffered reads, as this file system refuses direct ones",
}


def doctor(
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STORE", help="Stores to plan for.  [default: the demo]", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    r"""Measure this machine, and say which memory budgets fit a store.

    Storage is measured by direct reads of a temporary file beside the first store, or in this folder.

    \b
    edgemoe doctor
    edgemoe doctor qwen.store olmoe.store
    """
    from edgemoe.bench import measure_memory
    from edgemoe.cli.demo import demo_store
    from edgemoe.engine.energy import find_counters
    from edgemoe.engine.machine import describe_machine
    from edgemoe.workflows.doctor import budgets_of

    folder = next((store.absolute().parent for store in stores or () if store.exists()), Path.cwd())
    say(f"measuring memory and the storage of {folder} ...")
    record: dict[str, Any] = {
        "machine": describe_machine().to_json(),
        "energy_source": find_counters().source or "estimate",
        "memory_bytes_per_s": measure_memory(),
        "storage": _measured(folder),
        "stores": [budgets_of(store).to_json() for store in stores or ()],
    }
    if not stores:
        with demo_store() as store:
            record["stores"].append({**budgets_of(store).to_json(), "store": "(demo)"})
    if as_json:
        print_json(record)
        return
    _print_machine(record)
    _print_stores(record["stores"])


def _measured(folder: Path) -> dict[str, Any]:
    """The storage's speed, or why it cannot be measured, as in a folder that is read only."""
    from edgemoe.bench import measure_storage

    try:
        return measure_storage(folder).to_json()
    except RequestError as error:
        say(str(error))
        return {"folder": str(folder), "bytes_per_s": None, "method": None, "error": str(error)}


def _print_machine(record: dict[str, Any]) -> None:
    from edgemoe.units import format_size

    machine, storage = record["machine"], record["storage"]
    limit = machine["cgroup_limit_bytes"]
    print(f"processor  {machine['cpu']}, {machine['num_cpus']} cores, {machine['num_threads']} threads used")
    print(f"kernels    {machine['isa']} of {', '.join(machine['available_isas'])} (EDGEMOE_ISA forces one)")
    print(
        f"memory     {format_size(machine['available_memory_bytes'])} free of"
        f" {format_size(machine['memory_bytes'])}, cgroup limit {format_size(limit) if limit else 'none'},"
        f" reads at {format_size(record['memory_bytes_per_s'])}/s"
    )
    source = record["energy_source"]
    how = "estimated, as no counter can be read" if source == "estimate" else f"from {source}"
    print(f"energy     {how}")
    if storage["method"] is None:
        print(f"storage    not measured at {storage['folder']}")
        return
    how = READ_METHOD_NAMES[storage["method"]]
    print(f"storage    {format_size(storage['bytes_per_s'])}/s at {storage['folder']}, {how}")


def _print_stores(stores: list[dict[str, Any]]) -> None:
    from edgemoe.units import format_size

    table = new_table(
        "budgets", "store", "smallest", "all in memory", "default now", "experts in memory then"
    )
    for store in stores:
        table.add_row(
            store["store"],
            format_size(store["smallest_budget_bytes"]),
            format_size(store["resident_budget_bytes"]),
            format_size(store["default_budget_bytes"]),
            f"{store['default_resident_share']:.0%}" if store["fits"] else "does not fit",
        )
    print_table(table)
