"""Which family's manner of writing a chat template belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgemoe.server.dialects.deepseek import DEEPSEEK
from edgemoe.server.dialects.gemma import GEMMA
from edgemoe.server.dialects.glm import GLM
from edgemoe.server.dialects.harmony import HarmonyReader
from edgemoe.server.dialects.mistral import MISTRAL
from edgemoe.server.dialects.qwen import HERMES, QWEN_XML
from edgemoe.server.dialects.reader import AnswerReader, Call, Manner
from edgemoe.server.events import Reasoning, Text


class Reader(Protocol):
    """Reads one answer while its text arrives."""

    @property
    def is_thinking(self) -> bool:
        """Whether a thought is open."""

    @property
    def is_in_call(self) -> bool:
        """Whether a call is being read."""

    def answer_of(self, raw: str) -> str:
        """What stands behind the thought in all that a model wrote; "" if that cannot be told."""

    def push(self, text: str) -> list[Reasoning | Text | Call]:
        """What is certain after this text."""

    def finish(self, *, is_cut: bool) -> list[Reasoning | Text | Call]:
        """What is left when no more text comes; ``is_cut``: the limit of tokens ended it."""


@dataclass(frozen=True)
class Dialect:
    """A manner of writing under its name; without a manner, that of Harmony."""

    name: str
    manner: Manner | None
    # What stands before and after the JSON of a call's arguments, when a call must be made.
    forced_call: tuple[str, str] = ('<tool_call>\n{"name": "{name}", "arguments": ', "}\n</tool_call>")

    def reader(self, prompt: str, tools: Sequence[Mapping[str, Any]], *, takes_calls: bool) -> Reader:
        """A reader for the answer to a rendered prompt."""
        if self.manner is None:
            return HarmonyReader(takes_calls=takes_calls)
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
        is_thinking = self.opens_thought(prompt)
        return AnswerReader(self.manner, schemas, is_thinking=is_thinking, takes_calls=takes_calls)

    def opens_thought(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside a thought."""
        marks = self.manner.marks if self.manner else ()
        tail = prompt.rstrip()
        return any(tail.endswith(mark.text) for mark in marks if mark.opens is None)

    def answer_begins(self, prompt: str, *, is_call: bool) -> re.Pattern[str] | None:
        """What ends the thought before an answer; None if the answer begins at once."""
        if self.manner is None:
            return None if is_call else _HARMONY_ANSWER
        if not self.opens_thought(prompt):
            return None
        return re.compile("(?:" + "|".join(map(re.escape, self.manner.thought_ends)) + r")\s*\Z")


_HARMONY_ANSWER = re.compile(r"<\|channel\|>final[^<]*(<\|constrain\|>[^<]*)?<\|message\|>\Z")
_HARMONY_CALL = ("<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>", "")
_DEEPSEEK_CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>",
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
)

VERBATIM = Dialect("verbatim", Manner(()))
DIALECTS = {
    "qwen3-hermes": Dialect("qwen3-hermes", HERMES),
    "qwen3-xml": Dialect("qwen3-xml", QWEN_XML),
    "gemma4": Dialect("gemma4", GEMMA, ("<|tool_call>call:{name}", "<tool_call|>")),
    "gpt-oss": Dialect("gpt-oss", None, _HARMONY_CALL),
    "glm": Dialect("glm", GLM),
    "deepseek": Dialect("deepseek", DEEPSEEK, _DEEPSEEK_CALL),
    "mistral": Dialect("mistral", MISTRAL, ("[TOOL_CALLS]{name}[ARGS]", "")),
}
# What a template of a family writes and others do not; the first that is found decides.
_SIGNS = (
    ("<|channel|>", "gpt-oss"),
    ("<|tool_call>", "gemma4"),
    ("<arg_key>", "glm"),
    ("｜DSML｜", "deepseek"),
    ("<｜tool▁call", "deepseek"),
    ("<function=", "qwen3-xml"),
    ("[TOOL_CALLS]", "mistral"),
)


def find_dialect(template: str) -> Dialect:
    """The dialect of a chat template, by the marks it writes. Without any, calls are asked for as Hermes
    writes them.
    """
    return next((DIALECTS[name] for sign, name in _SIGNS if sign in template), DIALECTS["qwen3-hermes"])
