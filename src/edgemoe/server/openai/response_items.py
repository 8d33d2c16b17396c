"""Items of ``/v1/responses`` as they are kept and shown again: whole, each with an id."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.failures import Failure, refused
from edgemoe.server.request import new_id

ID_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
    "reasoning": "rs_",
    "compaction": "cmp_",
    "additional_tools": "at_",
    "tool_search_call": "tsc_",
    "tool_search_output": "tso_",
}
# Items that are left by tools which another server ran; what came of them stands in the text behind them.
OF_ELSEWHERE = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
SUMMARY_MARK = "edgemoe."  # before what this server writes into a compaction
SUMMARY_HEAD = "The conversation before this, in short:\n\n"
REFERENCE = "item_reference"
MOST_SHOWN = 100
SHOWN = 20  # where a client does not say how many


def whole_items(value: Any) -> list[dict[str, Any]]:
    """The input of a request that has been read, as a list of whole items."""
    entries = [{"role": "user", "content": value}] if isinstance(value, str) else value or ()
    return [_whole(entry) for entry in entries]


def _whole(entry: Mapping[str, Any]) -> dict[str, Any]:
    item = {"type": "message", **{key: value for key, value in entry.items() if value is not None}}
    if not isinstance(item.get("id"), str):
        item["id"] = new_id(ID_PREFIXES.get(item["type"], "item_"))
    if item["type"] == "message":
        item.setdefault("role", "user")
        item["content"] = _parts(item.get("content", ""), item["role"])
    if item["type"] == "reasoning":
        item.setdefault("summary", [])
    elif item["type"] not in {"additional_tools", "compaction"}:
        item.setdefault("status", "completed")
    return item


def _parts(content: Any, role: str) -> list[dict[str, Any]]:
    """A message's content as parts."""
    kind = "output_text" if role == "assistant" else "input_text"
    entries = content if isinstance(content, list) else [content]
    parts = [{"text": part} if isinstance(part, str) else part for part in entries]
    parts = [part if part.get("type", "text") != "text" else {**part, "type": kind} for part in parts]
    return [{"annotations": [], **part} if part["type"] == "output_text" else part for part in parts]


def compaction_of(text: str) -> dict[str, Any]:
    """The item that stands for a conversation of which a summary was written."""
    content = SUMMARY_MARK + base64.urlsafe_b64encode(text.encode()).decode()
    return {"id": new_id("cmp_"), "type": "compaction", "encrypted_content": content}


def compacted_text(content: str, name: str) -> str:
    """What the model reads of such an item.

    Raises:
        Failure: another server made it.
    """
    before, _, coded = content.partition(SUMMARY_MARK)
    try:
        text = base64.b64decode(coded, b"-_", validate=True).decode()
    except ValueError:
        before = content
    if before or content == before:
        raise Failure(400, f"{name}: was not written by this server", "invalid_encrypted_content", name)
    return SUMMARY_HEAD + text


def references(value: Any) -> list[tuple[int, str]]:
    """The items of an input that are named by their ids only, with their places."""
    entries = value if isinstance(value, list) else ()
    return [
        (place, str(entry.get("id")))
        for place, entry in enumerate(entries)
        if isinstance(entry, dict) and entry.get("type") == REFERENCE
    ]


def item_not_found(item_id: str) -> Failure:
    """A reference leads nowhere."""
    message = f"Item with id '{item_id[:200]}' not found: not kept, or forgotten. Send the item itself."
    return Failure(404, message, None, "input")


def page_of(
    items: Sequence[Mapping[str, Any]], query: Mapping[str, str], usual_order: str = "desc"
) -> dict[str, Any]:
    """The part of a list that ``limit``, ``order`` and ``after`` ask for.

    Raises:
        Failure: they are no such values.
    """
    order, wanted, after = query.get("order", usual_order), query.get("limit", str(SHOWN)), query.get("after")
    if order not in {"asc", "desc"}:
        raise refused("order", "must be asc or desc")
    if not wanted.isascii() or not wanted.isdecimal() or not 1 <= int(wanted[:9]) <= MOST_SHOWN:
        raise refused("limit", f"must be a whole number from 1 to {MOST_SHOWN}")
    shown = list(items if order == "asc" else reversed(items))
    if after is not None:
        ids = [item["id"] for item in shown]
        if after not in ids:
            raise refused("after", f"there is no item {after[:200]!r}")
        shown = shown[ids.index(after) + 1 :]
    part = shown[: int(wanted)]
    ends = {"first_id": part[0]["id"] if part else None, "last_id": part[-1]["id"] if part else None}
    return {"object": "list", "data": part, **ends, "has_more": len(part) < len(shown)}
