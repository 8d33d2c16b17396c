"""LFM2: ``<|tool_call_start|>[name(key='text', other=[1, {'a': True}])]<|tool_call_end|>``.

Strings are Python's, but the models' templates write them without escapes. So a quotation mark ends a string
only before what can follow one, and a line may end within it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.dialects.call_readers import ClosedCall, named_call
from edgemoe.server.dialects.coercion import coerce, property_schema
from edgemoe.server.dialects.json_span import dump_arguments, load_json
from edgemoe.server.dialects.qwen import THINK
from edgemoe.server.dialects.reader import Call, CallReader, Manner, Mark, Schemas

_WORD = re.compile(r"[^,()\[\]{}]+")
_WORDS = {"True": True, "False": False, "None": None}
# What follows an argument: another one, or the end of the call and another call or the end of all.
# No two rows of spaces stand side by side: all ways to part them would be tried.
_NAMED = r"""\s*([^\s()\[\]{},='"]+)\s*"""
_NAME = re.compile(_NAMED)
_AFTER_ARGUMENT = re.compile(rf"\s*(?:,{_NAMED}=|(?:,\s*)?\)\s*(?:,{_NAMED}\(|(?:,\s*)?(?:\]\s*)?\Z))")
_AFTER_ITEM = re.compile(r"\s*[,\])}:]")
# What a text may begin and end with, and what finds that and all that is escaped.
_QUOTES = {quote: re.compile(rf"\\.|{quote}", re.DOTALL) for quote in ("'''", '"""', "'", '"')}
_ESCAPE = re.compile(r"\\(\n|[\\'\"abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")
_LETTERS = {"\n": "", "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class _NoCall(Exception):
    """The text is not written as calls are."""


class _Text:
    """Reads calls from a text, front to back."""

    def __init__(self, text: str, schemas: Schemas) -> None:
        self._text = text
        self._schemas = schemas
        self._place = 0

    def calls(self) -> list[Call]:
        is_list = self._take("[")
        out = [self._call()]
        while self._take(",") and not self._is_at("]"):
            out.append(self._call())
        if is_list:
            self._take("]")
        if self._text[self._place :].strip():
            raise _NoCall
        return out

    def _call(self) -> Call:
        name = self._name("(")
        schema, arguments = self._schemas.get(name, {}), dict[str, Any]()
        while self._has_more(")", bool(arguments)):
            key = self._name("=")
            arguments[key] = self._value(_AFTER_ARGUMENT, property_schema(schema, key))
        return Call(name, dump_arguments(arguments))

    def _name(self, mark: str) -> str:
        found = _NAME.match(self._text, self._place)
        if found is None:
            raise _NoCall
        self._place = found.end()
        if not self._take(mark):
            raise _NoCall
        return found[1]

    def _value(self, follows: re.Pattern[str] = _AFTER_ITEM, schema: Any = None) -> Any:
        self._skip()
        for quote in _QUOTES:
            if self._text.startswith(quote, self._place):
                return self._string(quote, follows)
        if self._take("{"):
            return self._entries()
        for opens, closes in ("[]", "()"):
            if self._take(opens):
                return self._items(closes)
        return self._word(schema)

    def _string(self, quote: str, follows: re.Pattern[str]) -> str:
        start = self._place + len(quote)
        place = start
        while found := _QUOTES[quote].search(self._text, place):
            if found[0] == quote and follows.match(self._text, found.end()):
                self._place = found.end()
                return _ESCAPE.sub(_unescaped, self._text[start : found.start()])
            place = found.end() if found[0][0] == "\\" else found.start() + 1
        raise _NoCall

    def _entries(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while self._has_more("}", bool(out)):
            key = self._value()
            if not isinstance(key, str | int | float) or not self._take(":"):
                raise _NoCall
            out[str(key)] = self._value()
        return out

    def _items(self, closes: str) -> list[Any]:
        out: list[Any] = []
        while self._has_more(closes, bool(out)):
            out.append(self._value())
        return out

    def _word(self, schema: Any) -> Any:
        """A number, a word of Python's or JSON's, or a text without its quotation marks."""
        found = _WORD.match(self._text, self._place)
        word = found[0].strip() if found else ""
        if found is None or not word:
            raise _NoCall
        self._place = found.end()
        if word in _WORDS:
            return _WORDS[word]
        value = load_json(word)
        if value is ...:
            return coerce(word, schema or {})
        return value

    def _has_more(self, closes: str, is_later: bool) -> bool:
        """Step over what parts entries; whether there is another one. A comma may stand behind the last."""
        if self._take(closes):
            return False
        if is_later and not self._take(","):
            raise _NoCall
        return not (is_later and self._take(closes))

    def _skip(self) -> None:
        while self._place < len(self._text) and self._text[self._place].isspace():
            self._place += 1

    def _is_at(self, mark: str) -> bool:
        self._skip()
        return self._text.startswith(mark, self._place)

    def _take(self, mark: str) -> bool:
        if not self._is_at(mark):
            return False
        self._place += len(mark)
        return True


def _unescaped(found: re.Match[str]) -> str:
    letter = found[1]
    if letter[0] not in "xuU":
        return _LETTERS.get(letter, letter)
    code = int(letter[1:], 16)
    return chr(code) if code < 0xD800 or 0xDFFF < code <= 0x10FFFF else found[0]


def as_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls (name, arguments) as a model writes them, for templates that leave calls out."""
    shown = []
    for call in calls:
        pairs = [f"{name}={_literal(value)}" for name, value in call["arguments"].items()]
        shown.append(f"{call['name']}({', '.join(pairs)})")
    return f"<|tool_call_start|>[{', '.join(shown)}]<|tool_call_end|>"


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _parse(text: str, schemas: Schemas) -> Sequence[Call] | None:
    value = load_json(text)  # as the models write when they are asked for JSON
    if isinstance(value, dict | list) and value:
        found = [named_call(entry) for entry in (value if isinstance(value, list) else [value])]
        return None if None in found else [call for call in found if call is not None]
    try:
        return _Text(text, schemas).calls()
    except (_NoCall, RecursionError):
        return None


def _open(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["<|tool_call_end|>"], _parse)


LFM2 = Manner((THINK, Mark("<|tool_call_start|>", _open)), ("</think>",))
