"""Reads a JSON object from an untrusted file: gives a dictionary, or raises one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Far above any file that is read whole as JSON.
MAX_BYTES = 256 << 20


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a UTF-8 file.

    Raises:
        ValueError: it is none, is nested too deep, is not UTF-8, or is far too large.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"has {path.stat().st_size} bytes, far too many")
    return parse_json_object(path.read_bytes())


def parse_json_object(data: bytes, *, names_once: bool = False) -> dict[str, Any]:
    """The object in UTF-8 ``data``; of a name that stands twice the last counts, unless ``names_once``.

    Raises:
        ValueError: it is none, is nested too deep, is not UTF-8, or has a name twice that may stand once.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once if names_once else None)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice!r:.60} stands twice in one object")
    return found
