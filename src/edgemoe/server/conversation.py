"""From a request to the prompt that the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.server.call_memory import CallMemory, Messages, render_remembered
from edgemoe.server.failures import Failure, prompt_too_long, too_long
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import NONE, AnswerRequest
from edgemoe.server.tool_prompt import in_words, knows_tools


@dataclass(frozen=True)
class Prompt:
    """A prompt as text ("" where the client gave token ids) and as tokens, and the longest answer to it."""

    text: str
    token_ids: Sequence[int]
    max_tokens: int


def render(local: LocalModel, request: AnswerRequest, memory: CallMemory) -> Prompt:
    """The prompt of a request, checked against the context.

    Raises:
        Failure: the template refuses the conversation, or the context has no room.
    """
    tokenizer = local.model.tokenizer
    if request.messages is not None:
        text = render_messages(local, request, memory)
        token_ids: Sequence[int] = local.encode(text)
    elif isinstance(request.prompt, str):
        text, token_ids = request.prompt, tokenizer.encode_prompt(request.prompt, local.most_counted)
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


def render_messages(local: LocalModel, request: AnswerRequest, memory: CallMemory) -> str:
    """The conversation as the chat template writes it. A template that takes system messages only at the
    front is given later ones as the user's; one that knows no functions is told of them in words.

    Raises:
        Failure: the template refuses the conversation.
    """
    messages = request.messages or ()
    tools = None if request.tool_choice.kind == NONE else list(request.tools) or None
    begun = _begun(request)
    options = {**request.template_options} | ({"add_generation_prompt": False} if begun else {})

    def write(shown: Messages) -> str:
        if tools is not None and not knows_tools(local.template):
            text = local.render(in_words(shown, tools), None, options)
        else:
            text = local.render(shown, tools, options)
        return _up_to(text, begun) if begun else text

    try:
        return render_remembered(messages, memory, write)
    except RequestError as error:
        if not any(m["role"] == "system" for m in messages[1:]):
            raise Failure(400, str(error), "template_error", "messages") from None
    try:
        return render_remembered([messages[0], *map(_as_user, messages[1:])], memory, write)
    except RequestError as error:
        raise Failure(400, str(error), "template_error", "messages") from None


def _begun(request: AnswerRequest) -> str:
    """What the answer begins with: the last message, if the answer is to go on with that."""
    last = (request.messages or ({},))[-1]
    is_open = request.continues_last and last.get("role") == "assistant" and not last.get("tool_calls")
    return str(last.get("content") or "").rstrip() if is_open else ""


def _up_to(text: str, begun: str) -> str:
    """A conversation without what the template writes behind its last message."""
    place = text.rfind(begun)
    if place < 0:
        raise RequestError("the chat template changes the last message, so the answer cannot go on with it")
    return text[: place + len(begun)]


def _as_user(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**message, "role": "user"} if message["role"] == "system" else message
