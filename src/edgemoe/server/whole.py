"""An answer collected to its end, for clients that do not stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from edgemoe.server.answers import Burst
from edgemoe.server.events import Finish, Reasoning, Text, TokenChance, ToolDelta, ToolOpen, Usage


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


async def collect(told: AsyncGenerator[Burst]) -> list[Whole]:
    """All answers, in order. Errors as of the events."""
    events = [item async for burst in told for item in burst or ()]
    wholes: list[Whole] = []
    for choice, event in events:
        while len(wholes) <= choice:
            wholes.append(Whole())
        whole = wholes[choice]
        if isinstance(event, Text):
            whole.text += event.text
            whole.chances += event.chances
        elif isinstance(event, Reasoning):
            whole.reasoning += event.text
        elif isinstance(event, ToolOpen):
            whole.calls.append(WholeCall(event.call_id, event.name))
        elif isinstance(event, ToolDelta):
            whole.calls[event.index].arguments += event.text
        elif isinstance(event, Finish):
            whole.finish = event
    return wholes


def usage_of(wholes: list[Whole], per_prompt: int) -> Usage:
    """What all answers cost together, so many to each prompt."""
    return Usage.total([whole.finish.usage for whole in wholes if whole.finish is not None], per_prompt)
