"""The tokens that end an answer, as a checkpoint's files name them by their ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemoe.errors import StoreError
from edgemoe.text.side_files import read_json_object


def read_end_ids(folder: Path, config: Mapping[str, Any], may_end: Callable[[int], bool]) -> frozenset[int]:
    """Those of generation_config.json and of config.json, which is ``config``.

    Where the former names any, the latter may be left from another model, and its ids be those of words. So
    of these only the ones count for which ``may_end`` holds: tokens that were added to the vocabulary.

    Raises:
        StoreError: the file cannot be read, or names what is no token id.
    """
    generation = _ids(read_json_object(folder / "generation_config.json"), "generation_config.json")
    found = _ids(config, "config.json")
    # A model that sees images as well keeps what is of its texts apart.
    text_config = config.get("text_config")
    if isinstance(text_config, Mapping):
        found |= _ids(text_config, "config.json")
    return generation | frozenset(filter(may_end, found)) if generation else found


def _ids(settings: Mapping[str, Any], file: str) -> frozenset[int]:
    """End tokens: one, several or none; an id that is missing or negative means none."""
    value = settings.get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    for token_id in ids:
        if token_id is not None and (isinstance(token_id, bool) or not isinstance(token_id, int)):
            raise StoreError(f"{file}: eos_token_id has {token_id!r:.60}, which is no token id")
    return frozenset(token_id for token_id in ids if token_id is not None and token_id >= 0)
