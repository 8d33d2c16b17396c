"""From a request to the prompt that the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.server.failures import Failure, prompt_too_long, too_long
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import NONE, AnswerRequest


@dataclass(frozen=True)
class Prompt:
    """A prompt as text ("" where the client gave token ids) and as tokens, and the longest answer to it."""

    text: str
    token_ids: Sequence[int]
    max_tokens: int


def render(local: LocalModel, request: AnswerRequest) -> Prompt:
    """The prompt of a request, checked against the context.

    Raises:
        Failure: the template refuses the conversation, or the context has no room.
    """
    tokenizer = local.model.tokenizer
    if request.messages is not None:
        text = render_messages(local, request)
        token_ids: Sequence[int] = tokenizer.encode(text, adds_special=False)
    elif isinstance(request.prompt, str):
        text, token_ids = request.prompt, tokenizer.encode(request.prompt)
    else:
        text, token_ids = "", request.prompt or ()
    return Prompt(text, token_ids, _room(local, request, len(token_ids)))


def _room(local: LocalModel, request: AnswerRequest, num_prompt: int) -> int:
    """The longest answer that fits."""
    room = local.context - num_prompt
    if request.clips_max_tokens:
        if room < 1:
            raise prompt_too_long(num_prompt, local.context)
        return min(request.max_tokens or room, room)
    if room < (request.max_tokens or 1):
        raise too_long(num_prompt, request.max_tokens, local.context)
    return request.max_tokens or room


def render_messages(local: LocalModel, request: AnswerRequest) -> str:
    """The conversation as the chat template writes it. A template that takes system messages only at the
    front is given later ones as the user's.
    """
    assert request.messages is not None
    try:
        return _render(local, request, request.messages)
    except RequestError as error:
        if not any(m["role"] == "system" for m in request.messages[1:]):
            raise Failure(400, str(error), "template_error", "messages") from None
    try:
        return _render(local, request, [request.messages[0], *map(_as_user, request.messages[1:])])
    except RequestError as error:
        raise Failure(400, str(error), "template_error", "messages") from None


def _as_user(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**message, "role": "user"} if message["role"] == "system" else message


def _render(local: LocalModel, request: AnswerRequest, messages: Sequence[Mapping[str, Any]]) -> str:
    tools = None if request.tool_choice.kind == NONE else list(request.tools) or None
    return local.render(messages, tools, request.template_options)
