"""Gemma 4: ``<|tool_call>call:name{key:<|"|>text<|"|>,other:[1,{a:true}]}<tool_call|>``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgemoe.server.dialects.call_readers import ClosedCall
from edgemoe.server.dialects.json_span import dump_arguments, load_json
from edgemoe.server.dialects.reader import Call, CallReader, Manner, Mark, Schemas

QUOTE = '<|"|>'


class _NoCall(Exception):
    """The text is not written as calls are."""


class _Values:
    """Reads values from a text, front to back."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def at_end(self) -> bool:
        return not self._text[self._place :].strip()

    def value(self) -> Any:
        self._skip()
        if self._take(QUOTE):
            return self._until(QUOTE)
        if self._take("{"):
            return self._entries()
        if self._take("["):
            return self._items()
        return self._word()

    def _entries(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while not self._take("}"):
            if out and not self._take(","):
                raise _NoCall
            self._skip()
            key = self._until(QUOTE) if self._take(QUOTE) else self._until(":", stays=True)
            if not self._take(":"):
                raise _NoCall
            out[key.strip()] = self.value()
        return out

    def _items(self) -> list[Any]:
        out: list[Any] = []
        while not self._take("]"):
            if out and not self._take(","):
                raise _NoCall
            out.append(self.value())
        return out

    def _word(self) -> Any:
        start = self._place
        while self._place < len(self._text) and self._text[self._place] not in ",}]":
            self._place += 1
        word = self._text[start : self._place].strip()
        value = load_json(word)
        if not word:
            raise _NoCall
        return word if value is ... else value

    def _skip(self) -> None:
        while self._place < len(self._text) and self._text[self._place].isspace():
            self._place += 1

    def _take(self, mark: str) -> bool:
        self._skip()
        if not self._text.startswith(mark, self._place):
            return False
        self._place += len(mark)
        return True

    def _until(self, mark: str, *, stays: bool = False) -> str:
        end = self._text.find(mark, self._place)
        if end < 0:
            raise _NoCall
        text = self._text[self._place : end]
        self._place = end if stays else end + len(mark)
        return text


def _read(text: str) -> Any:
    values = _Values(text)
    try:
        value = values.value()
    except (_NoCall, RecursionError):
        return ...
    return value if values.at_end() else ...


def _parse(text: str, _: Schemas) -> Sequence[Call] | None:
    name, brace, rest = text.strip().partition("{")
    if not name.startswith("call:") or not brace or not name.removeprefix("call:").strip():
        return None
    arguments = load_json(brace + rest)  # a call that must be made is plain JSON
    if arguments is ...:
        arguments = _read(brace + rest)
    if not isinstance(arguments, dict):
        return None
    return [Call(name.removeprefix("call:").strip(), dump_arguments(arguments))]


def _open(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["<tool_call|>"], _parse)


GEMMA = Manner(
    (Mark("<|channel>thought", None), Mark("<|tool_call>", _open)), ("<channel|>",), strips_before_call=False
)
