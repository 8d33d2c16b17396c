"""gpt-oss: messages with headers, ``<|channel|>analysis<|message|>...<|end|>``; calls name a recipient."""

from __future__ import annotations

import re

from edgemoe.server.dialects.json_span import JsonSpan, dump_arguments, load_json
from edgemoe.server.dialects.reader import Call, find_first, safe_length
from edgemoe.server.events import Reasoning, Text

START, MESSAGE = "<|start|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>", START)
MARKS = (MESSAGE, "<|channel|>", "<|constrain|>", *ENDS)
_RECIPIENT = re.compile(r"to=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*([a-z]+)")
_HEADER_STARTS = ("<|", "to=", "assistant")

Piece = Reasoning | Text | Call


class HarmonyReader:
    """Reads one answer; as ``AnswerReader``. ``takes_calls`` False drops calls: nobody asked for them."""

    def __init__(self, *, takes_calls: bool) -> None:
        self._takes_calls = takes_calls
        self._held = ""
        self._is_header = True
        self._is_first = True
        self._header = ""
        self._kind = ""  # of the body: "reasoning", "text", "call" or "other"
        self._name = ""
        self._span = JsonSpan()

    @property
    def is_thinking(self) -> bool:
        """Whether a thought is open."""
        return not self._is_header and self._kind == "reasoning"

    @property
    def is_in_call(self) -> bool:
        """Whether a call is being read."""
        return not self._is_header and self._kind == "call"

    @property
    def held_space(self) -> str:
        """None: whitespace within a message belongs to it."""
        return ""

    def answer_of(self, raw: str) -> str:
        """Unknown: headers stand between thought and calls."""
        return ""

    def push(self, text: str) -> list[Piece]:
        """What is certain after this text."""
        return self._advance(text, is_end=False, is_cut=False)

    def finish(self, *, is_cut: bool) -> list[Piece]:
        """What is left when no more text comes; ``is_cut``: the limit of tokens ended it."""
        return self._advance("", is_end=True, is_cut=is_cut)

    def _advance(self, text: str, *, is_end: bool, is_cut: bool) -> list[Piece]:
        out: list[Piece] = []
        self._held += text
        while (
            self._read_header(out, is_end, is_cut)
            if self._is_header
            else self._read_body(out, is_end, is_cut)
        ):
            pass
        return out

    def _read_header(self, out: list[Piece], is_end: bool, is_cut: bool) -> bool:
        while self._held.startswith(START):
            self._held = self._held.removeprefix(START)
        if self._is_first and not self._could_be_header():
            self._is_header, self._is_first, self._kind = False, False, "text"  # written without any header
            return True
        place = self._held.find(MESSAGE)
        if place >= 0:
            self._header, self._held = self._held[:place], self._held[place + len(MESSAGE) :]
            self._open_body()
            return True
        if is_end and not is_cut and self._held.strip():
            out.append(Text(self._held))
        if is_end:
            self._held = ""
        return False

    def _could_be_header(self) -> bool:
        text = self._held.lstrip()
        return any(text.startswith(start) or start.startswith(text) for start in _HEADER_STARTS)

    def _open_body(self) -> None:
        self._is_header = self._is_first = False
        recipients = _RECIPIENT.findall(self._header)
        channels = _CHANNEL.findall(self._header)
        recipient = recipients[-1] if recipients else ""
        self._span, self._name = JsonSpan(), recipient.removeprefix("functions.")
        if recipient.startswith("functions."):
            self._kind = "call"
        elif recipient and recipient not in {"assistant", "user", "all"}:
            self._kind = "other"  # a tool of the model's makers, which nobody here has
        else:
            self._kind = "reasoning" if channels and channels[-1] == "analysis" else "text"

    def _read_body(self, out: list[Piece], is_end: bool, is_cut: bool) -> bool:
        if self._kind == "call":
            return self._read_call(out, is_end, is_cut)
        place, mark = find_first(self._held, ENDS)
        if not mark:
            keep = len(self._held) if is_end else safe_length(self._held, ENDS)
            self._emit(out, self._held[:keep])
            self._held = self._held[keep:]
            return False
        self._emit(out, self._held[:place])
        self._next_message(place + (0 if mark == START else len(mark)))
        return True

    def _next_message(self, place: int) -> None:
        self._held = self._held[place:].removeprefix(START)
        self._is_header = True

    def _emit(self, out: list[Piece], text: str) -> None:
        if text and self._kind in {"reasoning", "text"}:
            out.append(Reasoning(text) if self._kind == "reasoning" else Text(text))

    def _read_call(self, out: list[Piece], is_end: bool, is_cut: bool) -> bool:
        """A call's arguments end where their JSON ends: marks may stand inside."""
        self._held = self._held.lstrip() if self._span.end is None else self._held
        starts_object = self._held.startswith("{")
        end = self._span.feed(self._held) if starts_object else None
        if end is None and starts_object and not is_end:
            return False
        if end is None:
            place, mark = find_first(self._held, ENDS)
            if not mark and not is_end:
                return False
            end = place if mark else len(self._held)
        if not (is_end and is_cut and self._span.end is None):
            self._emit_call(out, self._held[:end])
        self._held = self._held[end:]
        self._kind = "other"  # whatever follows until the message's end
        return True

    def _emit_call(self, out: list[Piece], text: str) -> None:
        value = load_json(text) if text.strip() else {}
        if not self._takes_calls:
            return
        if isinstance(value, dict) and self._name:
            out.append(Call(self._name, dump_arguments(value), text))
        elif text:
            out.append(Text(text))
