"""Text to calibrate on, as tokens: every text gets the same share of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgemoe.errors import RequestError
from edgemoe.text import Tokenizer

DEFAULT_WINDOW = 512  # tokens that a model sees at once, if its context has so many


def share_tokens(tokenizer: Tokenizer, texts: Mapping[str, str], max_tokens: int) -> dict[str, list[int]]:
    """The beginnings of texts, by their names; ``max_tokens`` in all, two of each at least.

    Raises:
        RequestError: there are no texts, or they have no names.
    """
    if not isinstance(texts, Mapping) or not texts:
        raise RequestError("there is no text; give a table of names and texts")
    share = max(2, max_tokens // len(texts))
    return {name: tokenizer.encode_beginning(text, share) for name, text in texts.items()}


def windows_of(folder: Path, texts: Mapping[str, str], max_tokens: int, length: int) -> list[list[int]]:
    """Whole windows of the texts, by the tokenizer of a store; none reaches from one text into the next."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shared = share_tokens(Tokenizer(folder, config), texts, max_tokens)
    return [
        ids[start : start + length]
        for ids in shared.values()
        for start in range(0, len(ids) - length + 1, length)
    ]
