"""Readers of calls that several families share: JSON between marks, and text up to a closing mark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgemoe.server.dialects.json_span import JsonSpan, dump_arguments, load_json
from edgemoe.server.dialects.reader import Call, Calls, Schemas

Parse = Callable[[str, Schemas], Sequence[Call] | None]


class ClosedCall:
    """A call up to its closing mark. A mark before which the text is no call stands in an argument.

    ``parse`` makes calls of the text between the marks, or says None. ``trail`` may follow the closing mark
    and belongs to it. At the end of all text the closing mark may be missing.
    """

    def __init__(self, schemas: Schemas, closers: Sequence[str], parse: Parse, trail: str = "") -> None:
        self._schemas = schemas
        self._closers = closers
        self._parse = parse
        self._trail = trail
        self._text = ""
        self._from = 0
        self._calls: Sequence[Call] | None = None
        self._end = 0

    def feed(self, text: str, is_end: bool) -> Calls | None:
        """See ``CallReader``."""
        self._text += text
        if self._calls is None:
            self._search()
        if self._calls is not None:
            return self._with_trail(is_end)
        if not is_end:
            return None
        calls = self._parse(self._text, self._schemas)
        return None if calls is None else Calls(calls, "")

    def _search(self) -> None:
        """Try each closing mark that has come since the last search."""
        while True:
            found = [(p, c) for c in self._closers if (p := self._text.find(c, self._from)) >= 0]
            if not found:
                longest = max(map(len, self._closers))
                self._from = max(self._from, len(self._text) - longest + 1)
                return
            place, closer = min(found)
            self._calls = self._parse(self._text[:place], self._schemas)
            self._end = self._from = place + len(closer)
            if self._calls is not None:
                return

    def _with_trail(self, is_end: bool) -> Calls | None:
        assert self._calls is not None
        rest = self._text[self._end :]
        if not self._trail:
            return Calls(self._calls, rest)
        tight = rest.lstrip()
        if tight.startswith(self._trail):
            return Calls(self._calls, tight[len(self._trail) :])
        if self._trail.startswith(tight) and not is_end:
            return None
        return Calls(self._calls, rest)


class JsonCall:
    """Text up to a JSON value, the value, and a closing mark that may be missing.

    ``parse`` makes calls of the text before the value and the value, or says None.
    """

    def __init__(
        self,
        parse: Callable[[str, Any], Sequence[Call] | None],
        closer: str,
        longest_head: int = 0,
    ) -> None:
        self._parse = parse
        self._closer = closer
        self._longest_head = longest_head
        self._text = ""
        self._start: int | None = None
        self._span = JsonSpan()

    def feed(self, text: str, is_end: bool) -> Calls | None:
        """See ``CallReader``."""
        self._text += text
        if self._start is None and not self._find_start():
            is_hopeless = len(self._text.lstrip()) > self._longest_head
            return Calls(None, "") if is_hopeless or is_end else None
        assert self._start is not None
        end = self._span.feed(self._text[self._start :])
        if end is None:
            return Calls(None, "") if is_end else None
        end += self._start
        return self._close(end, is_end)

    def _find_start(self) -> bool:
        places = [p for p in map(self._text.find, "{[") if p >= 0]
        starts = [p for p in places if len(self._text[:p].lstrip()) <= self._longest_head]
        self._start = min(starts, default=None)
        return self._start is not None

    def _close(self, end: int, is_end: bool) -> Calls | None:
        rest = self._text[end:]
        tight = rest.lstrip()
        if self._closer and self._closer.startswith(tight) and tight != self._closer and not is_end:
            return None  # the mark may still come
        if self._closer and tight.startswith(self._closer):
            rest = tight[len(self._closer) :]
        return Calls(
            self._parse(self._text[: self._start].strip(), load_json(self._text[self._start : end])), rest
        )


def named_call(value: Any) -> Call | None:
    """The call of an object with a name and arguments."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = load_json(arguments)
    if arguments is None:
        arguments = {}
    return Call(value["name"], dump_arguments(arguments)) if isinstance(arguments, dict) else None
