"""Events of a response that is there as a whole: what a stream would have told, each text as one piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgemoe.server.openai.event_log import Entry
from edgemoe.server.openai.responses_answer import content_done
from edgemoe.server.streaming import named

Event = tuple[str, dict[str, Any]]
# What an item begins with, by its kind.
BEGINNINGS: Mapping[str, Mapping[str, Any]] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
    "tool_search_call": {"arguments": {}},
}


def replayed(response: Mapping[str, Any]) -> Sequence[Entry]:
    """All events but the last."""
    status = "in_progress"
    entries: list[Entry] = [("response.created", status), ("response.in_progress", status)]
    for place, item in enumerate(response["output"]):
        for kind, values in _events(item):
            numbered = {"type": kind, "sequence_number": len(entries), "output_index": place}
            entries.append(named(numbered | values))
    return entries


def _events(item: Mapping[str, Any]) -> Iterator[Event]:
    begun = {**item, **BEGINNINGS.get(item["type"], {})}
    if "status" in item:
        begun["status"] = "in_progress"
    if item["type"] == "reasoning":
        begun["content"] = [{**item["content"][0], "text": ""}]
    yield "response.output_item.added", {"item": begun}
    for kind, values in (*_content(item), *content_done(item)):
        yield kind, {"item_id": item["id"], **values}
    yield "response.output_item.done", {"item": item}


def _content(item: Mapping[str, Any]) -> Iterator[Event]:
    if item["type"] == "function_call":
        yield "response.function_call_arguments.delta", {"delta": item["arguments"]}
    elif item["type"] == "custom_tool_call":
        yield "response.custom_tool_call_input.delta", {"delta": item["input"]}
    elif item["type"] == "reasoning":
        yield "response.reasoning_text.delta", {"content_index": 0, "delta": item["content"][0]["text"]}
    elif item["type"] == "message":
        part = item["content"][0]
        empty = {**part, "text": "", "logprobs": []}
        yield "response.content_part.added", {"content_index": 0, "part": empty}
        told = {"delta": part["text"], "logprobs": part["logprobs"]}
        yield "response.output_text.delta", {"content_index": 0, **told}
