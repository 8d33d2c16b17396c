"""``edgemoe doctor``: what this machine can do, and which budget fits which store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import JsonOption
from edgemoe.cli.output import print_json, say


def doctor(
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[STORE]...", help="Stores to plan for. [default: the embedded demo]",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    r"""Look at processor, memory and storage, and say which budget fits which store.

    Storage is measured with direct reads of a temporary file beside the first store, or here.

    \b
    edgemoe doctor
    edgemoe doctor qwen.store olmoe.store
    """
    from edgemoe.cli.demo import demo_store
    from edgemoe.cli.storage_speed import measure_storage
    from edgemoe.engine.machine import describe_machine

    folder = stores[0].absolute().parent if stores else Path.cwd()
    say(f"measuring the storage of {folder} ...")
    record: dict[str, Any] = {
        "machine": describe_machine().to_json(),
        "storage": measure_storage(folder).to_json(),
        "stores": [_plan(store) for store in stores or ()],
    }
    if not stores:
        with demo_store() as store:
            record["stores"].append({**_plan(store), "store": "(demo)"})
    if as_json:
        print_json(record)
        return
