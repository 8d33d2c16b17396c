"""Token ids → text, by the tokenizers library but for what it misreads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import tokenizers

from edgemoe.text.token_bytes import of_letters


class Decoding:
    """Decodes ids that are all to be shown. Any number of threads may use it.

    Added tokens are found in a text before it becomes bytes, so they stand for themselves. The library's
    byte-level decoder (0.23) takes their letters for bytes: "đ" in one of them for byte 17. What bytes of a
    text may have become too, such as the one letter of a byte, keeps the library's reading.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, steps: Iterable[Mapping[str, Any]]) -> None:
        """``steps``: the single decoders, as tokenizer.json has them."""
        self._tokenizer = tokenizer
        added: Mapping[int, tokenizers.AddedToken] = {}
        if [step["type"] for step in steps] == ["ByteLevel"]:
            added = tokenizer.get_added_tokens_decoder()
        texts = {token_id: str(token.content) for token_id, token in added.items()}
        odd = {i: text for i, text in texts.items() if of_letters(text) != text.encode()}
        known = tokenizer.get_vocab(with_added_tokens=False) if odd else {}
        self._misread = {i: t for i, t in odd.items() if t not in known or not self._is_spelled(i, t)}

    def __call__(self, token_ids: Sequence[int]) -> str:
        """The text of ids, special tokens written out."""
        if not self._misread:
            return self._by_library(token_ids)
        return "".join(
            "".join(map(self._misread.__getitem__, run)) if is_misread else self._by_library(list(run))
            for is_misread, run in groupby(token_ids, self._misread.__contains__)
        )

    def _is_spelled(self, token_id: int, letters: str) -> bool:
        """Whether the bytes that the letters of a token stand for become that token in a text."""
        if len(letters) == 1:
            return True
        text = of_letters(letters).decode(errors="replace")
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) == [token_id]

    def _by_library(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))
