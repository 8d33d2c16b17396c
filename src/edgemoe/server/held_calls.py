"""Answers that may call functions: all is free until the model opens a call, and the call is then held to the
functions that were declared. Outside calls nothing is computed but whether a token can end a mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from edgemoe.errors import RequestError
from edgemoe.server.call_constraint import CallConstraint
from edgemoe.server.constraint import Mask
from edgemoe.server.dialects import Dialect, Opening
from edgemoe.text.tokenizer import Tokenizer

_TAIL = 32  # tokens that any mark is within
_THOUGHT = "thought"
Begin = Callable[[Opening, str], CallConstraint | None]  # a call is opened, and so much of it is there


class CallWatch:
    """Finds where calls and thoughts begin and end. For any thread; one for all answers of a model."""

    def __init__(self, dialect: Dialect, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._openings = dialect.openings
        calls = [f"(?P<call{place}>{self._pattern(each)})" for place, each in enumerate(dialect.openings)]
        begins = list(map(re.escape, dialect.thought_begins))
        ends = list(map(re.escape, dialect.thought_ends))
        in_thoughts = calls if dialect.manner and dialect.manner.call_ends_thought else []
        self._outside = re.compile("|".join([*calls, *_named(begins)]))
        self._inside = re.compile("|".join([*_named(ends), *in_thoughts]) or r"(?!)")
        marks = [*dialect.thought_begins, *dialect.thought_ends]
        self._lasts = {mark[-1] for mark in marks} | {
            last for each in dialect.openings for last in (each.mark[-1] if self._is_token(each) else "{<")
        }
        self._can_end: dict[int, bool] = {}

    def _is_token(self, opening: Opening) -> bool:
        """Whether a mark is one token, or has its own pattern: no ordinary text then."""
        return opening.pattern is not None or self._tokenizer.token_id(opening.mark) is not None

    def _pattern(self, opening: Opening) -> str:
        if opening.pattern is not None:
            return opening.pattern
        return re.escape(opening.mark) + ("" if self._is_token(opening) else r"(?=\s*[{<])")

    def can_end_mark(self, token_id: int) -> bool:
        """Whether a token's text has the last character of a mark."""
        known = self._can_end.get(token_id)
        if known is None:
            text = self._tokenizer.decode_all([token_id])
            known = self._can_end[token_id] = not self._lasts.isdisjoint(text)
        return known

    def find(self, text: str, *, is_thinking: bool) -> tuple[Opening | None, str] | None:
        """The first mark of a text, and what stands behind it: an opening, or None where a thought begins or
        ends. None if there is no mark.
        """
        found = (self._inside if is_thinking else self._outside).search(text)
        if found is None:
            return None
        kind = found.lastgroup or ""
        opening = None if kind == _THOUGHT else self._openings[int(kind.removeprefix("call"))]
        return opening, text[found.end() :]

    def text(self, token_ids: Sequence[int]) -> str:
        """Text of tokens."""
        return self._tokenizer.decode_all(token_ids)


def _named(marks: Sequence[str]) -> Iterator[str]:
    if marks:
        yield f"(?P<{_THOUGHT}>{'|'.join(marks)})"


class HeldCalls:
    """The constraint of one answer. ``begin`` makes that of a call, or says None if there can be none."""

    def __init__(self, watch: CallWatch, begin: Begin, *, is_thinking: bool) -> None:
        self._watch = watch
        self._begin = begin
        self._is_thinking = is_thinking
        self._call: CallConstraint | None = None
        self.has_called = False  # whether a call has been opened
        self._before = ""  # text behind the last mark that came within one token
        self._ids: list[int] = []  # tokens since then

    def mask(self) -> Mask | None:
        """Which tokens (V,) may come next; None outside calls, and in one that cannot be held: all."""
        if self._call is None:
            return None
        try:
            mask = self._call.mask()
            if not self._call.is_over and not self._call.has_failed:
                return mask
        except RequestError:  # the grammar became too complex
            pass
        self._call, self._before = None, ""
        return None

    def accept(self, token_id: int) -> None:
        """Take note of a token."""
        if self._call is not None:
            self._call.accept(token_id)
            return
        self._ids.append(token_id)
        if self._watch.can_end_mark(token_id):
            self._look()

    def _look(self) -> None:
        if len(self._ids) > _TAIL:
            self._before = ""
        text = self._before + self._watch.text(self._ids[-_TAIL:])
        while self._call is None and (found := self._watch.find(text, is_thinking=self._is_thinking)):
            opening, text = found
            self._ids, self._before = [], text
            if opening is None:
                self._is_thinking = not self._is_thinking
            else:
                self._is_thinking, self.has_called = False, True
                self._call = self._begin(opening, text)
