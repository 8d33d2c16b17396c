"""The body of ``POST /v1/completions`` as our requests, one for each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.server.fields import Fields, counts_each
from edgemoe.server.openai.chat_request import (
    HARMLESS,
    read_draw,
    read_max_tokens,
    read_response_format,
    refuse_other_samplers,
    with_ignored,
)
from edgemoe.server.options import Limits
from edgemoe.server.request import AnswerRequest

DEFAULT_MAX_TOKENS = 16  # as the API has it
MAX_PROMPTS = 1024


@dataclass(frozen=True)
class CompletionsRequest:
    """Prompts to go on from, each with all that is said of them."""

    requests: Sequence[AnswerRequest]

    @property
    def num_choices(self) -> int:
        """Answers in all."""
        return sum(request.num_choices for request in self.requests)


def read_completions(body: Mapping[str, Any], limits: Limits) -> CompletionsRequest:
    """The requests of a completion.

    Raises:
        Failure: naming the field that is wrong or that we do not act on.
    """
    fields = Fields(body)
    fields.refuse({"suffix": ("",)}, "this server goes on from the end only")
    fields.refuse({"add_special_tokens": (True,)}, "send token ids for a prompt without them")
    refuse_other_samplers(fields)
    wants_none, echoes = fields.get("max_tokens") == 0, fields.flag("echo")
    most = 1 if wants_none else read_max_tokens(fields, "max_tokens", "n_predict") or DEFAULT_MAX_TOKENS
    first = AnswerRequest(
        model=fields.needed_text("model"),
        max_tokens=most,
        schema=read_response_format(fields, limits),
        draw=read_draw(fields),
        stop=fields.texts("stop", limits.num_stops, limits.stop_chars),
        shows_special=not fields.flag("skip_special_tokens", True),
        num_choices=fields.integer("n", 1, limits.num_choices) or 1,
        num_top_logprobs=fields.integer("logprobs", 0, 20),
        echoes_prompt=echoes,
        only_scores=wants_none and echoes,
        only_reads=wants_none and not echoes,
        reports_progress=fields.flag("return_progress"),
        counts_each=counts_each(fields),
    )
    prompts = read_prompts(fields)
    first = with_ignored(first, fields, HARMLESS)
    from dataclasses import replace

    requests = [replace(first, prompt=prompt) for prompt in prompts]
    return CompletionsRequest(requests)


def read_prompts(fields: Fields) -> list[str | list[int]]:
    """The prompts: a text, a list of texts, a list of token ids, or a list of such lists."""
    value = fields.get("prompt")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value or len(value) > MAX_PROMPTS:
        raise fields.fail("prompt", f"must be a text, token ids, or a list of 1 to {MAX_PROMPTS} of either")
    if all(_is_id(token) for token in value):
        return [value]
    if all(isinstance(text, str) for text in value):
        return value
    if all(isinstance(ids, list) and ids and all(_is_id(token) for token in ids) for ids in value):
        return value
    raise fields.fail("prompt", "must be a text, token ids, or a list of either")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
