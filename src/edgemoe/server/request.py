"""The one request that every protocol is turned into."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Kinds of tool_choice; "named" goes with the function's name.
AUTO, NONE, REQUIRED, NAMED = "auto", "none", "required", "named"


@dataclass(frozen=True)
class ToolChoice:
    """Whether the model may, must or must not call a function, and which."""

    kind: str = AUTO
    name: str | None = None


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn; None leaves a value to the model's own defaults."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def given(self) -> dict[str, Any]:
        """The values that the client set, by the names of ``Model.stream``."""
        return {name: value for name, value in vars(self).items() if value is not None and value != {}}


@dataclass(frozen=True)
class AnswerRequest:
    """What to answer and how. Exactly one of ``messages`` and ``prompt`` is set.

    ``messages`` are in the shape of chat templates: role, content as text, tool_calls with their arguments
    as objects, tool_call_id, reasoning_content.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | Sequence[int] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    untold_tools: frozenset[str] = frozenset()  # names of tools whose definitions stand in the messages
    loose_tools: frozenset[str] = frozenset()  # names of those whose parameters need not be kept to
    input_grammars: Mapping[str, str] = field(default_factory=dict)  # by name: Lark of the text they take
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    allows_parallel_calls: bool = True
    schema: Mapping[str, Any] | None = None  # what the answer must be; {} for any JSON object
    template_options: Mapping[str, Any] = field(default_factory=dict)
    continues_last: bool = False  # the answer goes on with the last message, if that is the assistant's
    max_tokens: int | None = None
    clips_max_tokens: bool = False  # an answer that cannot be so long is cut, not refused
    context_parts: int = 1  # such an answer takes at most one of so many parts of the context
    draw: Draw = field(default_factory=Draw)
    stop: tuple[str, ...] = ()
    shows_special: bool = False  # special tokens are text
    echoes_prompt: bool = False  # the prompt stands before its answer, with its logprobs if there are any
    only_scores: bool = False  # no answer is written
    only_reads: bool = False  # the prompt is read, for later requests; no answer is told
    num_choices: int = 1
    num_top_logprobs: int | None = None  # None: no logprobs
    reports_progress: bool = False
    counts_each: bool = False  # tell how many tokens there are with each of them
    ignored_fields: tuple[str, ...] = ()


def new_id(prefix: str) -> str:
    """An id nobody can guess, such as ``chatcmpl-3f9c...``."""
    return prefix + secrets.token_hex(12)
