"""A JSON object from a file that anybody may have written: a dictionary or one kind of error."""

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


def parse_json_object(data: bytes) -> dict[str, Any]:
    """The object in UTF-8 ``data``.

    Raises:
        ValueError: it is none, is nested too deep, or is not UTF-8.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value
