"""An answer collected to its end, for clients that do not stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from edgemoe.server.answers import Burst
from edgemoe.server.events import Event, Finish, Reasoning, Text, TokenChance, ToolDelta, ToolOpen, Usage


@dataclass
class WholeCall:
    """A call with all its arguments."""

    call_id: str
    name: str
    arguments: str = ""


@dataclass
class Whole:
    """One of the answers to a prompt. ``order`` says how text and calls came: "" stands for text."""

    text: str = ""
    reasoning: str = ""
    calls: list[WholeCall] = field(default_factory=list)
    chances: list[TokenChance] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def reason(self) -> str:
        """How it ended."""
        return self.finish.reason if self.finish else "stop"

    def add(self, event: Event) -> None:
        """Take what comes next."""
        if isinstance(event, Text):
            self.text += event.text
            self.chances += event.chances
        elif isinstance(event, Reasoning):
            self.reasoning += event.text
        elif isinstance(event, ToolOpen):
            self.calls.append(WholeCall(event.call_id, event.name))
        elif isinstance(event, ToolDelta):
            self.calls[event.index].arguments += event.text
        elif isinstance(event, Finish):
            self.finish = event


async def collect(told: AsyncGenerator[Burst]) -> list[Whole]:
    """All answers, in order. Errors as of the events."""
    wholes: list[Whole] = []
    async for burst in told:
        add_all(wholes, burst)
    return wholes


def add_all(wholes: list[Whole], burst: Burst) -> None:
    """Take a burst of events of several answers."""
    for choice, event in burst or ():
        while len(wholes) <= choice:
            wholes.append(Whole())
        wholes[choice].add(event)


def usage_of(wholes: list[Whole], per_prompt: int) -> Usage:
    """What all answers cost together, so many to each prompt."""
    return Usage.total([whole.finish.usage for whole in wholes if whole.finish is not None], per_prompt)
