"""The messages of ``POST /v1/chat/completions`` in the shape of chat templates."""

from __future__ import annotations

from typing import Any

from edgemoe.server.fields import Fields
from edgemoe.server.messages import (
    MAX_MESSAGES,
    call_arguments,
    function_call,
    join_system,
    system_text,
)
from edgemoe.server.parts import content_text


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """The conversation, in the shape of chat templates."""
    entries = fields.items("messages", MAX_MESSAGES)
    if not entries:
        raise fields.fail("messages", "must have at least one message")
    read = [
        _read_message(Fields(entry, f"messages[{place}]"), is_last=place == len(entries) - 1)
        for place, entry in enumerate(entries)
    ]
    return join_system(read)


def _read_message(message: Fields, *, is_last: bool) -> dict[str, Any]:
    role = message.choice("role", ("system", "developer", "user", "assistant", "tool", "function"))
    if role is None:
        raise message.fail("role", "is missing")
    if role in {"system", "developer"}:
        return {"role": "system", "content": system_text(message.get("content"), message.name("content"))}
    is_new = is_last and role == "user"
    content = content_text(message.get("content"), message.name("content"), is_new=is_new)
    if role == "assistant":
        return _read_assistant(message, content)
    if role in {"tool", "function"}:
        call = {"tool_call_id": message.text("tool_call_id", ""), "name": message.text("name", "")}
        return {"role": "tool", "content": content} | {key: text for key, text in call.items() if text}
    return {"role": "user", "content": content}


def _read_assistant(message: Fields, content: str) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "assistant", "content": content}
    thought = message.text("reasoning_content") or message.text("reasoning")
    if thought:
        out["reasoning_content"] = thought
    calls = [_read_call(Fields(entry, f"{message.name('tool_calls')}[{place}]"))
             for place, entry in enumerate(message.items("tool_calls", 1024))]  # fmt: skip
    older = message.inner("function_call")
    if older is not None and not calls:
        calls = [_call_of("", older)]
    return out | ({"tool_calls": calls} if calls else {})


def _read_call(call: Fields) -> dict[str, Any]:
    call_id = call.text("id", "") or ""
    if call.text("type") == "custom" and (custom := call.inner("custom")) is not None:
        return function_call(call_id, custom.needed_text("name"), {"input": custom.text("input", "")})
    function = call.inner("function")
    if function is None:
        raise call.fail("function", "is missing")
    return _call_of(call_id, function)


def _call_of(call_id: str, function: Fields) -> dict[str, Any]:
    arguments = call_arguments(function.get("arguments"), function.name("arguments"))
    return function_call(call_id, function.needed_text("name"), arguments)
