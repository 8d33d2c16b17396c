"""``edgemoe list`` and ``edgemoe remove``: the stores that `edgemoe get` has made."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgemoe.cli.options import JsonOption
from edgemoe.cli.output import is_terminal, new_table, print_json, print_table, say
from edgemoe.errors import RequestError


def list_stores(as_json: JsonOption = False) -> None:
    r"""List the stores in your library; every command finds them by name.

    \b
    edgemoe list
    edgemoe list --json
    """
    from edgemoe.store.library import library_folder, list_library
    from edgemoe.units import format_size

    entries = list(list_library())
    if as_json:
        print_json({"library": str(library_folder()), "stores": [entry.to_json() for entry in entries]})
        return
    if not entries:
        say(f"{library_folder()} holds no store yet; edgemoe get NAME makes one")
        return
    table = new_table(f"stores in {library_folder()}", "name", "family", "experts", "size")
    for entry in entries:
        shown = (entry.model_type, str(entry.num_experts)) if entry.fault is None else ("cannot be run", "")
        table.add_row(entry.name, *shown, format_size(entry.num_bytes))
    print_table(table)
    for entry in entries:
        if entry.fault is not None:
            say(entry.fault)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Store in the library, as list shows it.")],
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Delete a store from your library.

    \b
    edgemoe remove Qwen/Qwen3-30B-A3B
    """
    from edgemoe.errors import NotAStoreError
    from edgemoe.store.library import find_in_library, library_folder, remove_from_library

    path = find_in_library(name)
    if path is None:
        raise NotAStoreError(f"{name}: no store of this name in {library_folder()}; see: edgemoe list")
    if not is_sure:
        if not is_terminal(sys.stdin):
            raise RequestError(f"{path} would be deleted; say --yes where nobody can be asked")
        if not typer.confirm(f"delete {path}?", err=True):
            path = None
    if path is not None:
        remove_from_library(name)
    if as_json:
        print_json({"removed": None if path is None else str(path)})
    else:
        say("nothing was deleted" if path is None else f"deleted {path}")
