"""Spaces before punctuation taken away, as ``clean_up_tokenization_spaces`` asks for."""

from __future__ import annotations

_CHANGES = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def tidy(text: str) -> str:
    """English as it is written, of words joined with spaces; the rules are those of transformers."""
    for before, after in _CHANGES:
        text = text.replace(before, after)
    return text
