"""The user's own stores by name: ``edgemoe get`` puts them there, and every command finds them there.

A store of the Hub's model ``organisation/model`` lies in the folder ``organisation/model`` below the
library's. ``EDGEMOE_HOME`` says where the library is; without it in the user's data folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemoe.errors import NotAStoreError, RequestError, StoreError
from edgemoe.store.format import MANIFEST_FILE
from edgemoe.store.manifest import read_manifest
from edgemoe.user_folders import user_data

HOME = "EDGEMOE_HOME"


@dataclass(frozen=True)
class LibraryEntry:
    """A store of the library."""

    name: str
    path: str
    num_bytes: int
    num_experts: int
    model_type: str
    fault: str | None = None  # why it cannot be run

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def library_folder() -> Path:
    """Where stores are kept by name; it need not exist.

    Raises:
        RequestError: neither EDGEMOE_HOME nor the user's home is known.
    """
    home = os.environ.get(HOME)
    if home:
        return Path(home).expanduser() / "stores"
    return user_data() / "stores"


def find_in_library(name: str | Path) -> Path | None:
    """The store of this name, ``model`` or ``organisation/model``; None where there is none.

    Raises:
        RequestError: several organisations have a store of this name.
    """
    text = str(name)
    if text.startswith(("/", ".", "~")) or ".." in Path(text).parts:
        return None
    try:
        folder = library_folder()
    except RequestError:  # without a home there is no library, and nothing to be found in it
        return None
    if (folder / text / MANIFEST_FILE).is_file():
        return folder / text
    found = [path.parent for path in folder.glob(f"*/*/{MANIFEST_FILE}") if path.parent.name == text]
    if len(found) > 1:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
        raise RequestError(f"{text}: several stores have this name: {names}; give the whole name")
    return found[0] if found else None


def list_library() -> Iterator[LibraryEntry]:
    """All stores of the library, by name."""
    folder = library_folder()
    for path in sorted(folder.glob(f"**/{MANIFEST_FILE}")):
        yield _entry(path.parent, path.parent.relative_to(folder).as_posix())


def remove_from_library(name: str) -> Path:
    """Delete a store of the library; what was its folder.

    Raises:
        NotAStoreError: there is none of this name.
    """
    path = find_in_library(name)
    if path is None:
        raise NotAStoreError(f"{name}: no store of this name in {library_folder()}; see: edgemoe list")
    shutil.rmtree(path)
    if path.parent != library_folder() and not any(path.parent.iterdir()):
        path.parent.rmdir()
    return path


def _entry(path: Path, name: str) -> LibraryEntry:
    num_bytes = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    try:
        manifest = read_manifest(path)
        config = json.loads((path / "config.json").read_bytes())
    except (StoreError, OSError, ValueError) as error:
        return LibraryEntry(name, str(path), num_bytes, 0, "", str(error))
    model_type = config.get("model_type") if isinstance(config, dict) else None
    return LibraryEntry(name, str(path), num_bytes, len(manifest.experts), str(model_type))
