"""Which family's manner of writing a chat template belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.server.dialects.reader import AnswerReader, Manner, Mark

THINK = Mark("<think>", None)


@dataclass(frozen=True)
class Dialect:
    """A manner of writing under its name."""

    name: str
    manner: Manner

    def reader(self, prompt: str, tools: Sequence[Any], *, takes_calls: bool) -> AnswerReader:
        """A reader for the answer to a rendered prompt."""
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        return AnswerReader(
            self.manner, schemas, is_thinking=self.opens_thought(prompt), takes_calls=takes_calls
        )

    def opens_thought(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside a thought."""
        tail = prompt.rstrip()
        return any(tail.endswith(mark.text) for mark in self.manner.marks if mark.opens is None)


VERBATIM = Dialect("verbatim", Manner(()))
PLAIN = Dialect("plain", Manner((THINK,), ("</think>",)))


def find_dialect(template: str) -> Dialect:
    """The dialect of a chat template, by the marks it writes."""
    return PLAIN
