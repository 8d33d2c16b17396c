"""The body of ``POST /v1/messages`` as our request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.anthropic.deferred import DeferredTools
from edgemoe.server.failures import refused
from edgemoe.server.fields import Fields
from edgemoe.server.messages import MAX_MESSAGES, function_call, join_system, system_text
from edgemoe.server.openai.chat_request import (
    MAX_TOKENS,
    effort_options,
    read_top_p,
    thinking_options,
    with_ignored,
)
from edgemoe.server.options import Limits
from edgemoe.server.parts import MEDIA, content_text, no_text, part_text
from edgemoe.server.request import REQUIRED, AnswerRequest, Draw, ToolChoice
from edgemoe.server.tools import check_schema_size, function_tool, loose_names, named_choice

HARMLESS = [
    "metadata",
    "service_tier",
    "container",
    "context_management",
    "stream",
    "betas",
    "anthropic_version",
    "anthropic_beta",
    "cache_control",
    "speed",
    "inference_geo",
    "diagnostics",
    "user_profile_id",
    "workspace_id",
    "billing_policy",
]


def read_messages_request(
    body: Mapping[str, Any], limits: Limits, *, needs_max_tokens: bool
) -> AnswerRequest:
    """The request of a message, or of counting its tokens.

    Raises:
        Failure: naming the field that is wrong or that we do not act on.
    """
    fields = Fields(body)
    fields.refuse({"mcp_servers": ([],)}, "this server runs no tools of its own")
    fields.refuse({"thread": ()}, "send the whole conversation")
    max_tokens = fields.integer("max_tokens", 0, MAX_TOKENS)
    if needs_max_tokens and max_tokens is None:
        raise fields.fail("max_tokens", "is missing")
    tools, later = _read_tools(fields, limits)
    deferred = DeferredTools(later)
    messages = _read_conversation(fields, deferred)
    tools += [tool for tool in later if tool["function"]["name"] in deferred.found]
    choice, is_parallel = _read_tool_choice(fields.inner("tool_choice"), tools)
    request = AnswerRequest(
        model=fields.needed_text("model"),
        messages=messages,
        tools=tools,
        untold_tools=frozenset(deferred.found),
        loose_tools=loose_names(fields.items("tools", limits.num_tools)),
        tool_choice=choice,
        allows_parallel_calls=is_parallel,
        schema=_read_schema(fields, limits),
        template_options=_read_thinking(fields),
        continues_last=True,
        max_tokens=None if max_tokens is None else max(1, max_tokens),
        only_reads=max_tokens == 0,
        clips_max_tokens=True,
        draw=Draw(
            temperature=fields.number("temperature", 0, 2),
            top_k=fields.integer("top_k", 0, MAX_TOKENS),
            top_p=read_top_p(fields),
        ),
        stop=fields.texts("stop_sequences", limits.num_stops, limits.stop_chars),
    )
    return with_ignored(request, fields, HARMLESS)


def _read_schema(fields: Fields, limits: Limits) -> Mapping[str, Any] | None:
    wanted = fields.inner("output_config") or fields.inner("output_format")
    if wanted is None:
        return None
    form = wanted.inner("format") or wanted
    if form.text("type") != "json_schema":
        return None
    schema = form.mapping("schema")
    check_schema_size(schema, form.name("schema"), limits)
    return schema


def _read_thinking(fields: Fields) -> dict[str, Any]:
    """Whether to think, and how much, in the options by which templates know it."""
    thinking, output = fields.inner("thinking"), fields.inner("output_config")
    effort = output.text("effort") if output else None
    options = effort_options(effort, "output_config.effort") if effort else {}
    if thinking is None:
        return options
    kind = thinking.choice("type", ("enabled", "disabled", "adaptive", "between_tools"))
    return options | thinking_options(kind != "disabled")


def _read_tools(fields: Fields, limits: Limits) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The client's own tools, and those of them that are deferred. Those that Anthropic would run are left
    out: nobody here could run them. Where one of them is the search, nothing is deferred.
    """
    tools: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    entries = [
        Fields(entry, f"tools[{place}]")
        for place, entry in enumerate(fields.items("tools", limits.num_tools))
    ]
    kinds = [tool.text("type", "custom") or "" for tool in entries]
    can_search = not any(kind.startswith("tool_search_tool") for kind in kinds)
    for tool, kind in zip(entries, kinds, strict=True):
        if kind == "custom":
            where = later if can_search and tool.flag("defer_loading") else tools
            where.append(function_tool(tool, "input_schema", limits))
    return tools, later


def _read_tool_choice(choice: Fields | None, tools: Sequence[Mapping[str, Any]]) -> tuple[ToolChoice, bool]:
    if choice is None:
        return ToolChoice(), True
    kind = choice.choice("type", ("auto", "any", "tool", "none"), "auto")
    is_parallel = not choice.flag("disable_parallel_tool_use")
    if kind == "tool":
        return named_choice(choice.needed_text("name"), tools), is_parallel
    if kind == "any":
        if not tools:
            raise refused("tool_choice", "is any, but there are no tools")
        return ToolChoice(REQUIRED), is_parallel
    return ToolChoice(kind or "auto"), is_parallel


def _read_conversation(fields: Fields, deferred: DeferredTools) -> list[dict[str, Any]]:
    system = system_text(fields.get("system"), "system")
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    entries = fields.items("messages", MAX_MESSAGES)
    if not entries:
        raise fields.fail("messages", "must have at least one message")
    for place, entry in enumerate(entries):
        message, is_last = Fields(entry, f"messages[{place}]"), place == len(entries) - 1
        messages += _read_message(message, deferred, is_last=is_last)
    return join_system(messages)


def _read_message(message: Fields, deferred: DeferredTools, *, is_last: bool) -> list[dict[str, Any]]:
    role = message.choice("role", ("user", "assistant", "system"))
    if role is None:
        raise message.fail("role", "is missing")
    content, name = message.get("content"), message.name("content")
    if role == "system":
        return [{"role": "system", "content": system_text(content, name)}]
    blocks = (
        [{"type": "text", "text": content}] if isinstance(content, str) else message.items("content", 4096)
    )
    parts = [Fields(block, f"{name}[{place}]") for place, block in enumerate(blocks)]
    if role == "assistant":
        return [_assistant(parts)]
    return _user(parts, deferred, is_last=is_last)


def _assistant(parts: Sequence[Fields]) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "assistant", "content": ""}
    calls = []
    for part in parts:
        kind = part.needed_text("type")
        if kind == "text":
            out["content"] += part.text("text", "") or ""
        elif kind == "thinking":  # signatures of others' models are not ours to check
            out["reasoning_content"] = out.get("reasoning_content", "") + (part.text("thinking", "") or "")
        elif kind == "tool_use":
            call_id, function = part.needed_text("id"), part.needed_text("name")
            calls.append(function_call(call_id, function, part.mapping("input")))
        elif kind == "compaction":
            out["content"] += part.text("content", "") or ""
        elif not _is_of_elsewhere(kind):
            raise no_text(part.name("type"), kind)
    return out | ({"tool_calls": calls} if calls else {})


def _is_of_elsewhere(kind: str) -> bool:
    """Whether a block of an assistant's turn is left by another model, or by tools that its server ran. What
    came of them stands in the text; in this model's mouth they would be words that it should not learn.
    """
    known = {"redacted_thinking", "server_tool_use", "mcp_tool_use", "mcp_tool_listing", "fallback", *MEDIA}
    return kind in known or kind.endswith("_tool_result")


def _user(parts: Sequence[Fields], deferred: DeferredTools, *, is_last: bool) -> list[dict[str, Any]]:
    """Results of tools are messages of their own, before the text beside them. What stands beside them comes
    from a client's tools too, so nobody could send it otherwise.
    """
    is_new = is_last and not any(part.get("type") == "tool_result" for part in parts)
    results, texts = [], []
    for part in parts:
        if part.needed_text("type") == "tool_result":
            text = content_text(deferred.written_out(part.get("content")), part.name("content"))
            if part.flag("is_error"):
                text = f"Error: {text}"
            call_id = part.needed_text("tool_use_id")
            results.append({"role": "tool", "content": text, "tool_call_id": call_id})
        else:
            texts.append(part_text(part.body, part.path, is_new=is_new))
    text = "\n".join(texts)
    return [*results, {"role": "user", "content": text}] if text or not results else results
