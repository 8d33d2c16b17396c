"""Finding where a JSON object or list ends while its text arrives."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


class JsonSpan:
    """Counts brackets outside strings. Each character is looked at once, however the text is cut."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False
        self._seen = 0
        self.end: int | None = None  # just behind the last bracket

    def feed(self, text: str) -> int | None:
        """The end of the value that ``text`` begins with, if it is there. ``text`` only grows."""
        while self.end is None and self._seen < len(text):
            self._take(text[self._seen])
            self._seen += 1
            if self._depth == 0:
                self.end = self._seen
        return self.end

    def _take(self, character: str) -> None:
        if self._is_in_string:
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = True
            elif character == '"':
                self._is_in_string = False
        elif character == '"':
            self._is_in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1


def load_json(text: str) -> Any:
    """The value of a text; ``Ellipsis`` if it is no JSON. Numbers that JSON has none for, as ``NaN`` and
    1e999, stay the text they are.
    """
    try:
        return json.loads(text, strict=False, parse_constant=str, parse_float=_number)
    except (ValueError, RecursionError):
        return ...


def _number(text: str) -> float | str:
    number = float(text)
    return number if isfinite(number) else text


def dump_arguments(arguments: dict[str, Any]) -> str:
    """Arguments as the text of a JSON object; halves of characters, which no
    answer could carry, as U+FFFD.
    """
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
