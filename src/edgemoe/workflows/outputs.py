"""Checks of output paths before any work: a place that cannot be written is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryFile

from edgemoe.errors import RequestError


def refuse_output(path: Path) -> None:
    """Refuse what could not be written, or would replace another.

    Raises:
        RequestError: saying so.
    """
    if path.exists() or path.is_symlink():
        raise RequestError(f"{path} exists; choose another name, or remove it")
    refuse_folder_of(path)


def refuse_folder_of(path: Path) -> None:
    """Refuse a file or folder to be made where nothing can be written.

    Raises:
        RequestError: saying so.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RequestError(f"{path}: there is no folder {folder}; make it first")
    try:
        with TemporaryFile(dir=folder):  # permission alone does not tell: the file system may be read-only
            pass
    except OSError as error:
        raise RequestError(f"{path}: {folder} cannot be written: {error.strerror}") from None


def existing_folder(path: Path) -> Path:
    """The folder that is there already and in which, or below which, a path would be made."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Bytes that are free where a path would be made."""
    return shutil.disk_usage(existing_folder(path)).free
