"""What people give on the command line besides numbers and names: texts, files, chat template values."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgemoe.errors import RequestError


def template_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Options of a chat template: values are JSON where they can be, else text.

    Raises:
        RequestError: a pair has no name or no value.
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise RequestError(f"--template-option {pair!r}: give NAME=VALUE, such as enable_thinking=false")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = as_utf8(value)
    return found


def as_utf8(text: str) -> str:
    """A text of the command line as the UTF-8 that it was typed in, whatever the locale says of it."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def read_text(path: Path) -> str:
    """The content of a text file, without the mark of UTF-8 that some editors begin it with.

    Raises:
        RequestError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def read_texts(paths: Sequence[Path]) -> dict[str, str]:
    """The contents of text files by their names; by their whole paths where names would be the same."""
    is_told_apart = len({path.name for path in paths}) == len(paths)
    return {path.name if is_told_apart else str(path): read_text(path) for path in paths}


def only_one(paths: Sequence[Path] | None, option: str) -> Path | None:
    """The path of an option that can be given once: of two the first would be dropped in silence.

    Raises:
        RequestError: there are more.
    """
    if paths and len(paths) > 1:
        raise RequestError(f"{option} can be given once here; join the files, or run once for each")
    return paths[0] if paths else None


def refuse_without(package: str, what: str, extra: str) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        RequestError: saying how to install it.
    """
    if find_spec(package) is None:
        raise RequestError(f"{what} needs {package}: pip install 'edgemoe[{extra}]'")
