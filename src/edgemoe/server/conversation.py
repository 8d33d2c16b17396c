"""From a request to the prompt that the model reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.server.call_memory import CallMemory, Messages, render_remembered
from edgemoe.server.dialects import find_dialect
from edgemoe.server.failures import Failure, prompt_too_long, too_long
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import NONE, AnswerRequest
from edgemoe.server.tool_prompt import in_words, knows_calls, knows_tools, with_calls_as_text


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
        return min(request.max_tokens or room, room, local.context // request.context_parts)
    if room < (request.max_tokens or 1):
        raise too_long(num_prompt, request.max_tokens, local.context)
    return request.max_tokens or room


def render_messages(local: LocalModel, request: AnswerRequest, memory: CallMemory) -> str:
    """The conversation as the chat template writes it, or the nearest that it takes (see ``_forms``). A
    template that knows no functions is told of them in words.

    Raises:
        Failure: the template refuses the conversation.
    """
    messages = request.messages or ()
    told = [tool for tool in request.tools if tool["function"]["name"] not in request.untold_tools]
    tools = None if request.tool_choice.kind == NONE else told or None
    begun = answer_begun(request)
    options = {**request.template_options} | ({"add_generation_prompt": False} if begun else {})

    dialect = find_dialect(local.template)

    def write(shown: Messages) -> str:
        try:
            return write_as_is(shown)
        except RequestError:
            short = with_short_ids(shown)
            if short == list(shown):
                raise
            return write_as_is(short)

    def write_as_is(shown: Messages) -> str:
        takes_tools, takes_calls = knows_tools(local.template), knows_calls(local.template)
        if not takes_tools and (tools is not None or not takes_calls):
            text = local.render(in_words(shown, tools or (), dialect), None, options)
        elif not takes_calls:
            text = local.render(with_calls_as_text(shown, dialect), tools, options)
        else:
            text = local.render(shown, tools, options)
        return _up_to(text, begun) if begun else text

    refusal = ""
    for shown in _forms(messages):
        try:
            return render_remembered(shown, memory, write)
        except RequestError as error:
            refusal = refusal or str(error)
    raise Failure(400, refusal, "template_error", "messages")


def _forms(messages: Messages) -> Iterator[Messages]:
    """Forms of a conversation, for templates that take system messages only at the front, no two messages of
    one side in a row, or no system messages at all.
    """
    yield messages
    later = [*messages[:1], *map(_as_user, messages[1:])]
    forms = [later, _joined(later), _joined([_as_user(message) for message in messages])]
    tried = [messages]
    for form in forms:
        if form not in tried:
            tried.append(form)
            yield form


def with_short_ids(messages: Messages) -> list[Mapping[str, Any]]:
    """The conversation with calls' ids of nine letters and digits: Mistral's templates refuse all others."""
    out: list[Mapping[str, Any]] = []
    for message in messages:
        calls = [{**call, "id": _short(call["id"])} for call in message.get("tool_calls") or ()]
        short = {**message, "tool_calls": calls} if calls else {**message}
        if message.get("tool_call_id"):
            short["tool_call_id"] = _short(message["tool_call_id"])
        out.append(short)
    return out


def _short(call_id: str) -> str:
    is_short = len(call_id) == 9 and call_id.isascii() and call_id.isalnum()
    return call_id if is_short else hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _joined(messages: Messages) -> list[Mapping[str, Any]]:
    """The conversation with the texts of neighbours of one side as one."""
    out: list[Mapping[str, Any]] = []
    for message in messages:
        is_next = bool(out) and out[-1]["role"] == message["role"] in {"user", "assistant"}
        if is_next and not out[-1].get("tool_calls") and not message.get("tool_calls"):
            text = "\n\n".join(part for part in (out[-1]["content"], message["content"]) if part)
            out[-1] = {**out[-1], "content": text}
        else:
            out.append(message)
    return out


def answer_begun(request: AnswerRequest) -> str:
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
