"""The bytes that a token writes, wherever it stands: a piece of a character is no text of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_HARMLESS = {"Fuse", "Strip"}  # steps that change no token in the midst of a text


class TokenBytes:
    """Reads tokens by the rules of their tokenizer's decoder. Any number of threads may use it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, steps: Iterable[Mapping[str, Any]]) -> None:
        """``steps``: the single decoders, as tokenizer.json has them."""
        self._tokenizer = tokenizer
        self._steps = list(steps)
        self._added = {i: str(t.content) for i, t in tokenizer.get_added_tokens_decoder().items()}

    def of(self, token_id: int) -> bytes | None:
        """The bytes of a token, b"" of one that the vocabulary lacks; None if a rule is not known here."""
        added = self._added.get(token_id)
        if added is not None:
            return added.encode()
        token = self._tokenizer.id_to_token(token_id)
        return b"" if token is None else self._read(token)

    def _read(self, token: str) -> bytes | None:
        for step in self._steps:
            kind = step["type"]
            if kind == "ByteLevel":
                return of_letters(token)
            if kind == "ByteFallback":
                if found := _BYTE.fullmatch(token):
                    return bytes.fromhex(found[1])
            elif kind == "Metaspace":
                token = token.replace(step["replacement"], " ")
            elif kind == "Replace" and "String" in step["pattern"]:
                token = token.replace(step["pattern"]["String"], step["content"])
            elif kind not in _HARMLESS:
                return None
        return token.encode()


def _letters() -> dict[str, int]:
    """The byte of each letter in which byte-level vocabularies are written: printable ones stand for
    themselves, the others for what Unicode has from 256 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_LETTERS = _letters()


def of_letters(token: str) -> bytes:
    """The bytes of a token of a byte-level vocabulary; one with other letters stands for itself."""
    known = [_LETTERS.get(letter) for letter in token]
    return token.encode() if None in known else bytes(byte for byte in known if byte is not None)
