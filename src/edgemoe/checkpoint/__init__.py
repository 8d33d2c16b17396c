"""Other people's model files."""

from __future__ import annotations

import re
from pathlib import Path

from edgemoe.checkpoint.folder import FolderCheckpoint
from edgemoe.checkpoint.gguf import MAGIC, GgufCheckpoint, is_model_name, model_name
from edgemoe.checkpoint.hub import HubCheckpoint, HubName, open_hub, parse_hub_name, with_file
from edgemoe.checkpoint.memory import MemoryCheckpoint
from edgemoe.checkpoint.source import CheckpointSource, ExactSource, SourceRef, TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import active_isa

__all__ = [
    "CheckpointSource",
    "ExactSource",
    "FolderCheckpoint",
    "GgufCheckpoint",
    "HubCheckpoint",
    "HubName",
    "MemoryCheckpoint",
    "SourceRef",
    "TensorInfo",
    "is_gguf",
    "model_name",
    "open_checkpoint",
    "open_hub",
    "parse_hub_name",
    "with_file",
]


# GGUF files that were cut by size, as some publish them: X.gguf.part1of2, X.gguf-split-a.
_PIECE = re.compile(r"(.+\.gguf)[.-](part|split)[-.]?\w+", re.IGNORECASE)


def open_checkpoint(path: str | Path) -> CheckpointSource:
    """Open a Hugging Face checkpoint folder, a GGUF file, or a model of the Hub by its name (hub/names.py).

    Raises:
        CheckpointError: it is missing, incomplete or damaged.
        RequestError: EDGEMOE_ISA names no instruction set that runs here.
    """
    active_isa()
    place = Path(path)
    _refuse_piece(place)
    if is_gguf(place):
        return GgufCheckpoint(place)
    name = parse_hub_name(path)
    if name is not None:
        return open_hub(name)
    if place.is_file() and (place.parent / "config.json").is_file():
        raise CheckpointError(f"{place}: is one file of a checkpoint; give its folder, {place.parent}")
    if not place.is_dir():
        what = "is neither a folder nor a GGUF file" if place.exists() else "not found"
        raise CheckpointError(f"{place}: {what}; give a Hugging Face folder or a GGUF file")
    inside = sorted(place.glob("*.gguf"), key=lambda file: (not is_model_name(file.name), file))
    if inside and not (place / "config.json").is_file():
        raise CheckpointError(f"{place}: holds GGUF files; name the one to open, for example {inside[0]}")
    if not (place / "config.json").is_file():
        for file in sorted(place.glob("*.gguf[.-]*")):
            _refuse_piece(file)
    snapshot = min((place / "snapshots").glob("*/config.json"), default=None)
    if snapshot is not None and not (place / "config.json").exists():
        raise CheckpointError(
            f"{place}: is a folder of the Hub's cache; give the snapshot in it, {snapshot.parent}"
        )
    return FolderCheckpoint(place)


def _refuse_piece(path: Path) -> None:
    piece = _PIECE.fullmatch(path.name)
    if piece is not None and path.is_file():
        raise CheckpointError(
            f"{path}: is a piece of {piece[1]}; join all pieces in their order with `cat`, and give the whole"
        )


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its first bytes, or by its name where they are damaged."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix.lower() == ".gguf"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
