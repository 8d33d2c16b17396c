"""Text of a model, as it arrives, becomes thoughts, answer and calls of functions.

What is emitted depends on the text alone, never on how it was cut into pieces. A mark that could still be
completed is held back, so half a tag is never shown. A call is told once it is whole and makes sense; one
that does not is shown as the text it is; one that was cut off is dropped, as half a call must not be run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgemoe.server.events import Reasoning, Text

Schemas = dict[str, dict[str, Any]]  # parameters by the function's name


@dataclass(frozen=True)
class Call:
    """A call that a model made: arguments as the text of a JSON object, and the text it was read from."""

    name: str
    arguments: str
    source: str = ""


@dataclass(frozen=True)
class Calls:
    """What a call's text turned out to be: calls and the text after them, or nothing that makes sense."""

    calls: Sequence[Call] | None
    rest: str


class CallReader(Protocol):
    """Reads what follows a mark that opens calls. Used once, by one thread."""

    def feed(self, text: str, is_end: bool) -> Calls | None:
        """Take more text; None while the call is unfinished, at the end of all text: cut off."""


@dataclass(frozen=True)
class Mark:
    """A text that opens something: a reader of calls, or None for a thought."""

    text: str
    opens: Callable[[Schemas], CallReader] | None


@dataclass(frozen=True)
class Manner:
    """How one family writes: its marks, and which whitespace around them belongs to the marks."""

    marks: Sequence[Mark]
    thought_ends: Sequence[str] = ()
    strips_before_call: bool = True
    call_ends_thought: bool = False  # the models forget to close thoughts before calls
    # Texts that stand for nothing, such as the mark that begins the final answer.
    silent: Sequence[str] = ()
    call_sections: Sequence[str] = ()  # those of them that open a list of calls


class AnswerReader:
    """Reads one answer; see above. ``is_thinking``: the prompt has already opened a thought; ``strips``: just
    now, so that whitespace does not count yet.
    """

    def __init__(
        self, manner: Manner, schemas: Schemas, *, is_thinking: bool, strips: bool, takes_calls: bool
    ) -> None:
        self._manner = manner
        self._schemas = schemas
        self._takes_calls = takes_calls
        self._marks = [m for m in manner.marks if m.opens is None or takes_calls]
        self._held = ""
        self._is_thinking = self._began_thinking = is_thinking
        self._has_text = False
        self._strips = strips  # whitespace after a thought's or a call's mark is no text
        self._call: CallReader | None = None
        self._opened = ""  # the text of the call being read, its mark included

    @property
    def is_thinking(self) -> bool:
        """Whether a thought is open."""
        return self._is_thinking

    @property
    def is_in_call(self) -> bool:
        """Whether a call is being read."""
        return self._call is not None

    @property
    def held_space(self) -> str:
        """Whitespace that is text unless a call or a thought comes next."""
        if self._is_thinking or self._call is not None:
            return ""
        return self._held[: len(self._held) - len(self._held.lstrip())]

    def answer_of(self, raw: str) -> str:
        """What stands behind the thought in all that a model wrote, calls as it wrote them."""
        opens = [mark.text for mark in self._manner.marks if mark.opens is None]
        if not self._began_thinking and not raw.lstrip().startswith(tuple(opens)):
            return raw.strip()
        place, mark = find_first(raw, self._manner.thought_ends)
        return raw[place + len(mark) :].strip() if mark else ""

    def push(self, text: str) -> list[Reasoning | Text | Call]:
        """What is certain after this text."""
        return self._advance(text, is_end=False, is_cut=False)

    def finish(self, *, is_cut: bool) -> list[Reasoning | Text | Call]:
        """What is left when no more text comes; ``is_cut``: the limit of tokens ended it."""
        return self._advance("", is_end=True, is_cut=is_cut)

    def _advance(self, text: str, *, is_end: bool, is_cut: bool) -> list[Reasoning | Text | Call]:
        out: list[Reasoning | Text | Call] = []
        self._held += text
        while self._step(out, is_end, is_cut):
            pass
        return out

    def _step(self, out: list[Reasoning | Text | Call], is_end: bool, is_cut: bool) -> bool:
        """Take one thing from the held text; whether there may be more."""
        if self._call is not None:
            return self._read_call(out, is_end, is_cut)
        if self._is_thinking:
            return self._read_thought(out, is_end)
        return self._read_text(out, is_end, is_cut and self._takes_calls)

    def _read_thought(self, out: list[Reasoning | Text | Call], is_end: bool) -> bool:
        texts = [m.text for m in self._marks if m.opens and self._manner.call_ends_thought]
        place, mark = find_first(self._held, [*self._manner.thought_ends, *texts])
        if mark:
            self._emit_thought(out, self._held[:place].rstrip())
            self._is_thinking, self._strips = False, True
            self._held = self._held[place if mark in texts else place + len(mark) :]
            return True
        keep = len(self._held) if is_end else safe_length(self._held, [*self._manner.thought_ends, *texts])
        shown = self._held[:keep].rstrip()
        self._emit_thought(out, shown)
        self._held = "" if is_end else self._held[len(shown) :]
        return False

    def _emit_thought(self, out: list[Reasoning | Text | Call], text: str) -> None:
        if self._strips:
            text = text.lstrip()
        if text:
            self._strips = False
            out.append(Reasoning(text))

    def _read_text(self, out: list[Reasoning | Text | Call], is_end: bool, is_cut: bool) -> bool:
        """``is_cut``: half a mark at the end was to become a call, and is no text."""
        if self._strips:
            self._held = self._held.lstrip()
        texts = [m.text for m in self._marks]
        watched = [*texts, *self._manner.silent]
        place, mark = find_first(self._held, watched)
        if mark:
            before = self._held[:place]
            is_silent = mark not in texts
            self._emit_text(out, self._without_space(before))
            self._held = self._held[place + len(mark) :]
            if not is_silent:
                self._open(next(m for m in self._marks if m.text == mark))
            return True
        keep = len(self._held) if is_end and not is_cut else safe_length(self._held, watched)
        if watched and not is_end:
            keep = len(self._without_space(self._held[:keep]))
        self._emit_text(out, self._held[:keep])
        self._held = self._held[keep:]
        return False

    def _without_space(self, text: str) -> str:
        """Text without the whitespace at its end that belongs to a mark, if one is there or comes next.

        Where no calls are read there is none but before a thought that begins the answer.
        """
        if not self._manner.strips_before_call:
            return text
        if self._manner.silent or any(mark.opens for mark in self._marks):
            return text.rstrip()
        return text if self._has_text or text.strip() else ""

    def _emit_text(self, out: list[Reasoning | Text | Call], text: str) -> None:
        if text:
            self._strips, self._has_text = False, True
            out.append(Text(text))

    def _open(self, mark: Mark) -> None:
        if mark.opens is None:
            self._is_thinking = self._strips = True
        else:
            self._call, self._opened = mark.opens(self._schemas), mark.text

    def _read_call(self, out: list[Reasoning | Text | Call], is_end: bool, is_cut: bool) -> bool:
        assert self._call is not None
        text, self._held = self._held, ""
        self._opened += text
        done = self._call.feed(text, is_end and not is_cut)
        if done is None:
            if is_end:
                self._call = None
                if not is_cut and not self._is_only_mark():
                    self._emit_text(out, self._opened)
            return False
        self._call, self._held = None, done.rest
        source = self._opened[: len(self._opened) - len(done.rest)]
        if done.calls is None:
            self._emit_text(out, source)
        else:
            out.extend(Call(call.name, call.arguments, source) for call in done.calls)
            self._strips = self._manner.strips_before_call
        return True

    def _is_only_mark(self) -> bool:
        return any(self._opened.strip() == mark.text for mark in self._marks)


def find_first(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Place and text of the mark that comes first, the longest of several there; -1 if there is none."""
    found = [(place, -len(mark), mark) for mark in marks if (place := text.find(mark)) >= 0]
    if not found:
        return -1, ""
    place, _, mark = min(found)
    return place, mark


def safe_length(text: str, marks: Sequence[str]) -> int:
    """How much of a text cannot belong to a mark that more text would complete."""
    longest = max((len(mark) for mark in marks), default=0)
    for start in range(max(0, len(text) - longest + 1), len(text)):
        if any(mark.startswith(text[start:]) for mark in marks):
            return start
    return len(text)
