r"""A vocabulary as it reads within JSON strings: what each token is the escape of, so that a grammar of plain
text can say which tokens may be written there.

A token reads one way at the beginning of a character and another behind a backslash, so there are two views
of V tokens each: 0..V-1 and V..2V-1. A token that ends in a backslash is worth what may follow: for each of
those characters there is one more entry, behind the views. Characters are escaped in one way only, by the
short escapes; ``\u`` is never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f", b'"': b'"', b"\\": b"\\"}
_LEAST_PLAIN = 0x20  # bytes below it stand in no JSON string
_END = b"</end>"


@dataclass(frozen=True)
class Reading:
    """What a token is the escape of, and whether it ends in a backslash that is no character yet."""

    text: bytes
    is_open: bool


def read_escaped(written: bytes) -> Reading | None:
    """What bytes within a JSON string mean; None if they cannot stand there."""
    out = bytearray()
    place = 0
    while place < len(written):
        byte = written[place : place + 1]
        if byte == b"\\":
            letter = written[place + 1 : place + 2]
            if not letter:
                return Reading(bytes(out), True)
            if letter not in _ESCAPES:
                return None
            out += _ESCAPES[letter]
            place += 2
        elif byte == b'"' or byte[0] < _LEAST_PLAIN:
            return None
        else:
            out += byte
            place += 1
    return Reading(bytes(out), False)


class EscapedTokens:
    """The two views as one vocabulary of llguidance's; V: size of the model's."""

    def __init__(self, tokens: LLTokenizer, size: int) -> None:
        self._size = size
        self._ids: dict[bytes, int] = {}  # texts that need an entry of their own
        entries = [b""] * (2 * size)
        self._open: dict[int, Reading] = {}  # readings that end in a backslash, by their place in the views
        for place, reading in self._readings(tokens):
            if reading.is_open:
                self._open[place] = reading
            else:
                entries[place] = reading.text
        owners, continued = [], []
        for place, reading in self._open.items():
            for character in _ESCAPES.values():
                owners.append(place)
                continued.append(self._entry(entries, reading.text + character))
            if reading.text:
                self._entry(entries, reading.text)
        self._owners, self._continued = np.array(owners, int), np.array(continued, int)
        self._end = len(entries)
        # Without slices: they would double the memory, and masks take 7 ms at most with 150,000 tokens.
        self.tokens = LLTokenizer(cast(TokenizerWrapper, _Entries([*entries, _END], self._end)), slices=[])

    def _readings(self, tokens: LLTokenizer) -> Iterator[tuple[int, Reading]]:
        for token_id in range(self._size):
            written = b"" if tokens.is_special_token(token_id) else tokens.decode_bytes([token_id])
            for start, before in ((0, b""), (self._size, b"\\")):
                reading = read_escaped(before + written) if written else None
                if reading is not None:
                    yield start + token_id, reading

    def _entry(self, entries: list[bytes], text: bytes) -> int:
        """The place of an entry for a text."""
        if text not in self._ids:
            self._ids[text] = len(entries)
            entries.append(text)
        return self._ids[text]

    def allowed(self, matcher: LLMatcher, *, is_open: bool) -> tuple[NDArray[np.bool_], bool]:
        """Which tokens (V,) may come next, and whether the text may end here. ``is_open``: a backslash stands
        before them.
        """
        entries = np.frombuffer(matcher.compute_logit_bias(), np.uint8) != 0
        views = entries[: 2 * self._size].copy()
        views[self._owners[entries[self._continued]]] = True
        start = self._size if is_open else 0
        return views[start : start + self._size], bool(entries[self._end]) and not is_open

    def accept(self, matcher: LLMatcher, token_id: int, *, is_open: bool) -> bool:
        """Take note of a token; whether the text now ends in a backslash."""
        place = token_id + (self._size if is_open else 0)
        reading = self._open.get(place)
        if reading is None:
            matcher.consume_token(place)
            return False
        if reading.text:
            matcher.consume_token(self._ids[reading.text])
        return True


class _Entries:
    """What llguidance asks of a vocabulary that comes from elsewhere."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: list[bytes], end: int) -> None:
        self.tokens = tokens
        self.eos_token_id = end
        self.special_token_ids = [end]

    def __call__(self, text: str) -> list[int]:
        """Tokens of a text; nothing here is ever cut into tokens."""
        return []
