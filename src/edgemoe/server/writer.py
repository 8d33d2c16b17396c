"""Tokens of one answer become its events: stops, calls, thoughts and counts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgemoe.server.call_memory import Turn
from edgemoe.server.dialects import Call, Reader
from edgemoe.server.events import (
    Counted,
    Event,
    Finish,
    Reasoning,
    Text,
    TokenChance,
    ToolClose,
    ToolDelta,
    ToolOpen,
    Usage,
)
from edgemoe.server.local_model import End, Token
from edgemoe.server.request import new_id
from edgemoe.server.text_memory import Written
from edgemoe.text.stops import StopScanner


class AnswerWriter:
    """Writes one answer. ``is_done`` is set when it ends before the engine ends it."""

    def __init__(
        self, reader: Reader, stops: Sequence[str], written: Written, *, only_one_call: bool = False
    ) -> None:
        """``written`` takes all that the model writes."""
        self._reader = reader
        self._scanner = StopScanner(stops)
        self._stops = stops
        self.written = written
        self._num_prompt = written.num_tokens
        self._only_one_call = only_one_call
        self._unread: list[TokenChance] = []  # of tokens that may be no text
        self._chances: list[TokenChance] = []  # of text that is not told yet
        self._seen = ""  # text that the scanner was given, to say which stop ended it
        self._num_reasoning = 0
        self.num_tokens = 0
        self._told: list[str] = []  # the text without the calls
        self.calls: list[tuple[str, Call]] = []  # with their ids
        self.is_done = False
        self._has_ended_early = False  # before the engine knew of it

    def push(self, token: Token) -> list[Event]:
        """Events that a token brings. What the engine writes before it notices the end does not count."""
        if self.is_done:
            return []
        self.num_tokens += token.token_id is not None
        self.written.push(token.text + token.left_out, token.token_id)
        was_thinking, was_in_call = self._reader.is_thinking, self._reader.is_in_call
        self._num_reasoning += was_thinking
        pieces = self._reader.push(token.text)
        if token.chance is not None and not was_thinking and not was_in_call:
            self._unread.append(token.chance)
        self._settle(pieces)
        return self._events(pieces) + self._stopping()

    def _stopping(self) -> list[Event]:
        """The events of whitespace that the reader holds back, if that completes a stop text."""
        space = self._reader.held_space
        if self.is_done or not self._scanner.would_stop(space):
            return []
        pieces = [Text(space)]
        self._settle(pieces)
        return self._events(pieces)

    def _settle(self, pieces: Sequence[Reasoning | Text | Call]) -> None:
        """Tokens that the reader held back are either text by now, or the mark of a call or a thought."""
        if any(isinstance(piece, Text) for piece in pieces):
            self._chances += self._unread
            self._unread = []
        elif self._reader.is_in_call or self._reader.is_thinking:
            self._unread = []

    def finish(self, end: End) -> list[Event]:
        """The last events."""
        out: list[Event] = []
        self._has_ended_early = self.is_done
        if not self.is_done:
            pieces = self._reader.finish(is_cut=end.reason == "length")
            self._settle(pieces)
            out = self._events(pieces)
        if not self._scanner.is_stopped and (rest := self._scanner.flush()):
            out.append(self._text(rest))
        self._chances += self._unread
        if self._chances:
            out.append(self._text(""))
        return [*out, Finish(self._reason(end), self._usage(end), self._stop_text())]

    def counted(self) -> Counted:
        """How many tokens there are by now."""
        return Counted(self._num_prompt, self.num_tokens)

    def _usage(self, end: End) -> Usage:
        """What was written up to the answer's end. The token that ends it counts, as in other APIs."""
        count = self.num_tokens + (end.by_token and not self._has_ended_early)
        timings = dict(end.timings)
        if "predicted_n" in timings:
            rate = timings["predicted_per_second"]
            took_ms = round(max(count - 1, 0) / rate * 1000, 3) if rate else 0.0
            timings |= {"predicted_n": count, "predicted_ms": took_ms}
        return Usage(self._num_prompt, count, end.num_cached, self._num_reasoning, timings)

    def turn(self) -> Turn:
        """What is remembered of an answer with calls."""
        calls = {call_id: (call.name, json.loads(call.arguments)) for call_id, call in self.calls}
        return Turn(self._reader.answer_of(self.written.answer), "".join(self._told), calls)

    def _reason(self, end: End) -> str:
        if self.calls:  # another may have been cut off behind them
            is_cut = end.reason == "length" and not self._has_ended_early
            return "length" if is_cut else "tool_calls"
        if self._scanner.is_stopped:
            return "stop_sequence"
        return "length" if end.reason == "length" else "stop"

    def _stop_text(self) -> str | None:
        if not self._scanner.is_stopped:
            return None
        found = [(self._seen.find(stop), stop) for stop in self._stops if stop in self._seen]
        return min(found)[1] if found else None

    def _events(self, pieces: Sequence[Reasoning | Text | Call]) -> list[Event]:
        out: list[Event] = []
        for piece in pieces:
            if self.is_done:
                break
            if isinstance(piece, Text):
                self._told.append(piece.text)
                out += self._scan(piece.text)
            elif isinstance(piece, Call):
                out += self._scan_rest()
                out += self._call(piece)
            else:
                out.append(piece)
        return out

    def _scan(self, text: str) -> list[Event]:
        longest = max((len(stop) for stop in self._stops), default=0)
        self._seen = self._seen[-longest:] + text if longest else ""
        shown = self._scanner.push(text)
        self.is_done = self._scanner.is_stopped
        return [self._text(shown)] if shown else []

    def _scan_rest(self) -> list[Event]:
        rest = self._scanner.flush()
        return [self._text(rest)] if rest else []

    def _text(self, text: str) -> Text:
        chances, self._chances = tuple(self._chances), []
        return Text(text, chances)

    def _call(self, call: Call) -> list[Event]:
        index, call_id = len(self.calls), new_id("call_")
        self.calls.append((call_id, call))
        self.is_done = self._only_one_call
        return [ToolOpen(index, call_id, call.name), ToolDelta(index, call.arguments), ToolClose(index)]
