"""Files that stand where another should: what a failed download leaves, and JSON that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgemoe.errors import CheckpointError
from edgemoe.json_object import parse_json_object

START_BYTES = 128
_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")
# Indices of the largest checkpoints take some 20 MB.
_MAX_JSON_BYTES = 256 << 20


def refuse_stand_in(path: Path) -> None:
    """Refuse a file whose first bytes say that it is something else, left by a download that went wrong.

    Raises:
        CheckpointError: a pointer of Git LFS, a web page, an empty file, or none that can be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    what = stand_in(start)
    if what:
        raise CheckpointError(f"{path}: {what}")


def stand_in(start: bytes) -> str | None:
    """What a file that begins so is instead of the file itself, and what to do; None where it may be it."""
    if not start:
        return "is empty; fetch it again"
    if start.startswith(_LFS):
        return (
            "is a pointer of Git LFS, not the file itself; run `git lfs pull` in its folder, or fetch the"
            " model with `hf download`"
        )
    if start.lstrip().lower().startswith(_PAGES):
        return "is a web page, not the file itself; fetch it again, logged in if the model asks for that"
    return None


def parse_json(data: bytes, what: str | Path) -> dict[str, Any]:
    """The JSON object in UTF-8 ``data``, which messages call ``what``.

    Raises:
        CheckpointError: it is none, or stands for another file.
    """
    other = stand_in(data[:START_BYTES])
    if other:
        raise CheckpointError(f"{what}: {other}")
    try:
        return parse_json_object(data)
    except ValueError as error:
        raise CheckpointError(f"{what}: {error}; fetch it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: there is no such file, or it is none.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: has {path.stat().st_size} bytes, far too many; fetch it again")
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; a checkpoint folder needs it") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_json(data, path)
