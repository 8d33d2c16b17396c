"""Replacing a store: the old one is set aside under another name, and deleted once the new one is there.

A store that is set aside holds a mark, which is the last of it to be deleted; so one that a killed process
left is known for ours, and nothing else under such a name is ever touched.
"""

from __future__ import annotations

import shutil
from itertools import count
from os.path import lexists
from pathlib import Path

from edgemoe.store.durable import sync_folder, write_file

MARK = "superseded"


def set_aside(store: Path) -> None:
    """Move a store out of the way: to NAME.replaced, or NAME.replaced-1 and so on where that is taken.

    Raises:
        OSError: it cannot be marked or renamed.
    """
    write_file(store / MARK, b"another store takes the place of this one, and then deletes it\n")
    sync_folder(store)
    names = (f"{store.name}.replaced{f'-{n}' if n else ''}" for n in count())
    store.rename(next(place for place in map(store.with_name, names) if not lexists(place)))


def remove_set_aside(store: Path) -> None:
    """Delete what was set aside of a store, now or by a process that did not come to it.

    Raises:
        OSError: something cannot be deleted.
    """
    first = f"{store.name}.replaced"
    for place in store.parent.iterdir():
        is_ours = (place.name == first or place.name.startswith(f"{first}-")) and (place / MARK).is_file()
        if is_ours and not place.is_symlink():  # what a link leads to was never set aside
            _remove(place)


def _remove(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    (place / MARK).unlink()
    place.rmdir()
