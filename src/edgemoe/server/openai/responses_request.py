"""The body of ``POST /v1/responses`` as our request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.server.failures import refused, unsupported
from edgemoe.server.fields import Fields
from edgemoe.server.grammar import INPUT
from edgemoe.server.messages import (
    MAX_MESSAGES,
    call_arguments,
    function_call,
    join_system,
    system_text,
)
from edgemoe.server.openai.chat_request import (
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    effort_options,
    read_draw,
    read_template_options,
    refuse_other_samplers,
    with_ignored,
)
from edgemoe.server.openai.response_items import OF_ELSEWHERE, compacted_text
from edgemoe.server.openai.response_tools import (
    ADDITIONAL,
    SEARCH,
    ResponseTools,
    full_name,
    is_own_search,
)
from edgemoe.server.options import Limits
from edgemoe.server.parts import content_text
from edgemoe.server.request import AnswerRequest
from edgemoe.server.tools import check_schema_size, chosen_tools

HARMLESS = frozenset(
    {
        "background",
        "client_metadata",
        "include",
        "max_tool_calls",
        "metadata",
        "previous_response_id",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "truncation",
        "user",
    }
)


@dataclass(frozen=True)
class Delivery:
    """How a client gets its response."""

    streams: bool
    is_kept: bool
    in_background: bool


def read_delivery(body: Mapping[str, Any]) -> Delivery:
    """What a body says of it.

    Raises:
        Failure: it asks for two things that exclude each other.
    """
    fields = Fields(body)
    found = Delivery(fields.flag("stream"), fields.flag("store", True), fields.flag("background"))
    if found.in_background and not found.is_kept:
        raise fields.fail("background", "needs store: true, or nobody could fetch the response")
    return found


def read_place(query: Mapping[str, str]) -> int:
    """The number of the event that a stream begins behind; -1 for all of it.

    Raises:
        Failure: it is no number.
    """
    value = query.get("starting_after", "")
    if value and not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise refused("starting_after", "must be the number of an event, 0 or more")
    return int(value) if value else -1


def read_responses(
    body: Mapping[str, Any],
    limits: Limits,
    history: Sequence[Mapping[str, Any]] = (),
    tools: ResponseTools | None = None,
) -> AnswerRequest:
    """The request of a response; ``history`` are items before those of the body.

    ``tools``, empty, takes what the client knows its tools by.

    Raises:
        Failure: naming the field that is wrong or that we do not act on.
    """
    fields = Fields(body)
    fields.refuse({"conversation": (), "prompt": ()}, "this server keeps responses; use previous_response_id")
    fields.refuse({"moderation": ()}, "nothing here judges texts")
    fields.choice("truncation", ("auto", "disabled"))  # what does not fit is refused, not cut
    refuse_other_samplers(fields)
    found = ResponseTools(limits) if tools is None else tools
    found.tell_first(fields)
    messages = _read_input(fields, history, found)
    chosen, tool_choice = chosen_tools(found.shown(), fields.get("tool_choice"))
    num_top = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    wants_logprobs = "message.output_text.logprobs" in fields.items("include", 64)
    request = AnswerRequest(
        model=fields.needed_text("model"),
        messages=messages,
        tools=chosen,
        untold_tools=found.written(),
        loose_tools=found.loose(),
        input_grammars=found.input_grammars(),
        tool_choice=tool_choice,
        allows_parallel_calls=fields.flag("parallel_tool_calls", True),
        schema=_read_format(fields, limits),
        template_options=read_template_options(fields) | _read_effort(fields),
        max_tokens=fields.integer("max_output_tokens", 1, MAX_TOKENS),
        draw=read_draw(fields),
        stop=fields.texts("stop", limits.num_stops, limits.stop_chars),
        num_top_logprobs=(num_top or 0) if wants_logprobs else None,
        reports_progress=True,
    )
    return with_ignored(request, fields, sorted(HARMLESS))


def _read_effort(fields: Fields) -> dict[str, Any]:
    reasoning = fields.inner("reasoning")
    effort = reasoning.text("effort") if reasoning else None
    return effort_options(effort, "reasoning.effort") if effort else {}


def _read_format(fields: Fields, limits: Limits) -> Mapping[str, Any] | None:
    text = fields.inner("text")
    form = text.inner("format") if text else None
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        schema = form.mapping("schema")
        check_schema_size(schema, form.name("schema"), limits)
        return schema
    return {"type": "object"} if kind == "json_object" else None


def _read_input(
    fields: Fields, history: Sequence[Mapping[str, Any]], tools: ResponseTools
) -> list[dict[str, Any]]:
    instructions = fields.text("instructions")
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    value = fields.get("input")
    is_text = isinstance(value, str)
    entries = [] if is_text else fields.items("input", MAX_MESSAGES)
    if not is_text and not entries and not history:
        raise fields.fail("input", "must be a text or a list of items")
    items = [Fields(entry, f"previous_response_id[{place}]") for place, entry in enumerate(history)]
    items += [Fields(entry, f"input[{place}]") for place, entry in enumerate(entries)]
    for place, item in enumerate(items):
        if place == 0 and item.text("type") == ADDITIONAL:
            tools.tell_first(item)
        else:
            _add_item(messages, item, tools, is_last=bool(entries) and place == len(items) - 1)
    if is_text:
        messages.append({"role": "user", "content": value})
    return join_system(messages)


def _add_item(messages: list[dict[str, Any]], item: Fields, tools: ResponseTools, *, is_last: bool) -> None:
    kind = item.text("type", "message")
    if kind == "message":
        _add_message(messages, item, is_last=is_last)
    elif kind in {"function_call", "custom_tool_call"}:
        _assistant(messages).setdefault("tool_calls", []).append(_call(item, kind))
    elif kind in {"function_call_output", "custom_tool_call_output"}:
        messages.append(_result(item, content_text(item.get("output"), item.name("output"))))
    elif kind == "reasoning":
        thought = content_text(item.get("content") or item.get("summary"), item.name("content"))
        if thought:
            _assistant(messages)["reasoning_content"] = thought
    elif kind == "compaction":
        text = compacted_text(item.needed_text("encrypted_content"), item.name("encrypted_content"))
        messages.append({"role": "user", "content": text})
    elif kind == ADDITIONAL:
        messages.append({"role": "system", "content": tools.write_out(item)})
    elif is_own_search(item.body):
        _add_search(messages, item, tools)
    elif kind not in OF_ELSEWHERE:
        raise unsupported(f"{item.name('type')} {kind!r}", "this server knows messages and functions only")


def _add_search(messages: list[dict[str, Any]], item: Fields, tools: ResponseTools) -> None:
    """A search for tools that the client ran, or what it found."""
    if item.get("type") == "tool_search_output":
        messages.append(_result(item, tools.write_out(item)))
        return
    arguments = call_arguments(item.get("arguments"), item.name("arguments"))
    call = function_call(item.needed_text("call_id"), SEARCH, arguments)
    _assistant(messages).setdefault("tool_calls", []).append(call)


def _result(item: Fields, text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": item.needed_text("call_id")}


def _add_message(messages: list[dict[str, Any]], item: Fields, *, is_last: bool) -> None:
    role = item.choice("role", ("user", "assistant", "system", "developer"), "user")
    value, name = item.get("content"), item.name("content")
    if role == "assistant":
        _assistant(messages)["content"] += content_text(value, name)
    elif role == "user":
        messages.append({"role": "user", "content": content_text(value, name, is_new=is_last)})
    else:
        messages.append({"role": "system", "content": system_text(value, name)})


def _call(item: Fields, kind: str) -> dict[str, Any]:
    """A call; of a tool whose input is any text, that is its one argument."""
    name = full_name(item.text("namespace"), item.needed_text("name"))
    if kind == "custom_tool_call":
        arguments = {INPUT: item.text("input", "") or ""}
    else:
        arguments = call_arguments(item.get("arguments"), item.name("arguments"))
    return function_call(item.needed_text("call_id"), name, arguments)


def _assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's turn that items are added to: thought, text and calls of a turn come one by one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]
