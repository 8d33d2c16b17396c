"""The text in which a model wrote its calls, by the calls' ids.

A client sends a call back as JSON, and the chat template writes that in its own way: another text than the
model wrote, so all that follows would be read anew. With the model's own text the turn is the same again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Messages = Sequence[Mapping[str, Any]]
Render = Callable[[Messages], str]

MAX_TURNS = 1024
MAX_CHARACTERS = 1 << 20


@dataclass
class Turn:
    """One answer with calls: its whole text behind the thought, what clients were told of it, and whether a
    template takes the text as it is (None: not tried yet).
    """

    text: str
    content: str
    calls: Mapping[str, tuple[str, Any]]  # name and arguments by id
    fits: bool | None = None


class CallMemory:
    """Remembers the newest turns, within a bound. Any number of threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: OrderedDict[str, Turn] = OrderedDict()  # by each of a turn's ids
        self._num_characters = 0

    def keep(self, turn: Turn) -> None:
        """Remember a turn; the oldest are forgotten for it."""
        with self._lock:
            for call_id in turn.calls:
                self._turns[call_id] = turn
                self._num_characters += len(turn.text)
            while len(self._turns) > MAX_TURNS or self._num_characters > MAX_CHARACTERS:
                _, oldest = self._turns.popitem(last=False)
                self._num_characters -= len(oldest.text)

    def find(self, message: Mapping[str, Any]) -> Turn | None:
        """The turn that a message repeats, if it does so to the letter."""
        calls = message.get("tool_calls") or ()
        with self._lock:
            turn = self._turns.get(calls[0]["id"]) if calls else None
        if turn is None or str(message.get("content") or "").strip() != turn.content.strip():
            return None
        told = {call["id"]: (call["function"]["name"], call["function"]["arguments"]) for call in calls}
        return turn if told == turn.calls else None


def render_remembered(messages: Messages, memory: CallMemory, render: Render) -> str:
    """The conversation, each remembered turn in the model's own words where the template takes them."""
    shown, text = list(messages), render(messages)
    for place, message in enumerate(messages):
        turn = memory.find(message)
        if turn is None or turn.fits is False:
            continue
        tried = list(shown)
        tried[place] = {k: v for k, v in message.items() if k != "tool_calls"} | {"content": turn.text}
        new = render(tried)
        if turn.fits is None:
            turn.fits = differs_only_within(text, new, turn.text)
        if turn.fits and turn.text in new:
            shown, text = tried, new
    return text


def differs_only_within(old: str, new: str, inserted: str) -> bool:
    """Whether ``new`` has ``inserted`` to the letter, and is as ``old`` before and after it."""
    place = new.find(inserted)
    if place < 0:
        return False
    before, after = new[:place], new[place + len(inserted) :]
    return old.startswith(before) and old.endswith(after) and len(old) >= len(before) + len(after)
