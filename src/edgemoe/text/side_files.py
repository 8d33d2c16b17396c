"""JSON files beside the weights: read as UTF-8 whatever the locale, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgemoe.errors import StoreError

# Tokenizers of today take up to 40 MB; a file far above that is something else.
MAX_FILE_BYTES = 512 << 20


def read_text_file(path: Path) -> str:
    """The text of a file.

    Raises:
        StoreError: it cannot be read, is not UTF-8 or too large to be what it should be.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise StoreError(f"{path}: has {size} bytes, too many for such a file; fetch it again")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: is not UTF-8 (byte {error.start}); fetch it again") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is no such file.

    Raises:
        StoreError: it cannot be read, or is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text_file(path))
    except RecursionError:
        raise StoreError(f"{path}: is nested too deep; fetch it again") from None
    except ValueError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: is not a JSON object; fetch it again")
    return value
