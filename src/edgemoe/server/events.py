"""The one stream of events that every protocol is made from.

    Reasoning* (Text | ToolOpen ToolDelta* ToolClose)* Finish

with ``Progress`` before the first of them. Encoders turn these into the chunks of a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TokenChance:
    """A drawn token: what it writes, natural logarithm of its probability, and the likeliest in its place."""

    written: bytes  # maybe a piece of a character
    logprob: float | None  # None: the first token of a text, which nothing foretells
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Progress:
    """So many of the prompt's tokens are known: read now, or from before."""

    done: int
    total: int
    elapsed_s: float


@dataclass(frozen=True)
class Counted:
    """So many tokens an answer has by now, told before what the newest of them brings."""

    num_prompt: int
    num_completion: int


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Text:
    """A piece of the answer; maybe empty, when only ``chances`` of its tokens are told."""

    text: str
    chances: tuple[TokenChance, ...] = ()


@dataclass(frozen=True)
class ToolOpen:
    """A call of a function begins."""

    index: int
    call_id: str
    name: str


@dataclass(frozen=True)
class ToolDelta:
    """A piece of a call's arguments, which are the text of a JSON object."""

    index: int
    text: str


@dataclass(frozen=True)
class ToolClose:
    """A call is complete."""

    index: int


@dataclass(frozen=True)
class Usage:
    """What an answer cost, in tokens; ``timings`` are ours, in milliseconds, bytes and counts."""

    num_prompt: int
    num_completion: int
    num_cached: int = 0
    num_reasoning: int = 0
    timings: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def total(usages: Sequence[Usage], per_prompt: int) -> Usage:
        """Of answers in order, so many to each prompt, which counts once."""
        prompts = usages[::per_prompt]
        return Usage(
            sum(usage.num_prompt for usage in prompts),
            sum(usage.num_completion for usage in usages),
            sum(usage.num_cached for usage in prompts),
            sum(usage.num_reasoning for usage in usages),
            usages[-1].timings if usages else {},
        )


@dataclass(frozen=True)
class Finish:
    """The answer ended: "stop", "stop_sequence" (with the text it ended before), "length" or "tool_calls"."""

    reason: str
    usage: Usage
    stop_text: str | None = None


Event = Progress | Counted | Reasoning | Text | ToolOpen | ToolDelta | ToolClose | Finish
