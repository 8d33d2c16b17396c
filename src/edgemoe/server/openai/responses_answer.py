"""The answer of ``POST /v1/responses``, streamed and whole: both are made by one builder of the response."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from edgemoe.server.events import (
    Event,
    Finish,
    Progress,
    Reasoning,
    Text,
    ToolClose,
    ToolDelta,
    ToolOpen,
    Usage,
)
from edgemoe.server.failures import Failure
from edgemoe.server.openai.chat_answer import logprobs_body
from edgemoe.server.openai.response_items import ID_PREFIXES
from edgemoe.server.openai.response_tools import CUSTOM, SEARCH, ClientTool, custom_input
from edgemoe.server.request import new_id
from edgemoe.server.streaming import named

# What a response repeats of its request, with what stands there when it was left out.
ECHOED: Mapping[str, Any] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}

# What a function has where it was left out; clients that check types want all of it.
FUNCTION: Mapping[str, Any] = {"description": None, "parameters": None, "strict": None}

# What a failed response says of our errors; by the first, agents know that they must shorten a conversation.
ERROR_CODES = {"context_length_exceeded": "context_length_exceeded", "queue_full": "rate_limit_exceeded"}


def usage_body(usage: Usage) -> dict[str, Any]:
    """``usage`` as this API counts it."""
    return {
        "input_tokens": usage.num_prompt,
        "input_tokens_details": {"cached_tokens": usage.num_cached, "cache_write_tokens": 0},
        "output_tokens": usage.num_completion,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning},
        "total_tokens": usage.num_prompt + usage.num_completion,
    }


def content_done(item: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events before that of a whole item: their kinds, and what each says beside the item's place."""
    if item["type"] == "function_call":
        yield (
            "response.function_call_arguments.done",
            {"arguments": item["arguments"], "name": item["name"]},
        )
    elif item["type"] == "custom_tool_call":
        yield "response.custom_tool_call_input.done", {"input": item["input"]}
    elif item["type"] == "reasoning":
        yield "response.reasoning_text.done", {"content_index": 0, "text": item["content"][0]["text"]}
    elif item["type"] == "message":
        part = item["content"][0]
        done = {"text": part["text"], "logprobs": part["logprobs"]}
        yield "response.output_text.done", {"content_index": 0, **done}
        yield "response.content_part.done", {"content_index": 0, "part": part}


class ResponsesEncoder:
    """Events as those of a response; ``response`` is what there is of it so far."""

    def __init__(
        self, model: str, body: Mapping[str, Any], tools: Mapping[str, ClientTool] = MappingProxyType({})
    ) -> None:
        """``body``: the request, which has been read; ``tools``: by the names that the model knows."""
        echoed = {key: default if body.get(key) is None else body[key] for key, default in ECHOED.items()}
        echoed["tools"] = [
            FUNCTION | tool if tool["type"] == "function" else tool for tool in echoed["tools"]
        ]
        echoed["text"] = ECHOED["text"] | echoed["text"]
        reasoning = body.get("reasoning")
        effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
        self.response: dict[str, Any] = {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "reasoning": {"effort": effort, "summary": None},
            "usage": None,
            **echoed,
        }
        self._tools = tools
        self.number = 0  # of the next event
        self._item: dict[str, Any] | None = None  # the open one
        self._arguments = ""  # of the open call

    def opening(self) -> Iterable[str]:
        """The response without its output."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def encode(self, choice: int, event: Event) -> Iterable[str]:
        """The events of an event."""
        if isinstance(event, Text):
            yield from self._text(event)
        elif isinstance(event, Reasoning):
            yield from self._reasoning(event)
        elif isinstance(event, ToolOpen):
            yield from self._close()
            yield from self._open(self._call(event))
        elif isinstance(event, ToolDelta):
            assert self._item is not None
            self._arguments += event.text
            if self._item["type"] == "function_call":
                self._item["arguments"] = self._arguments
                yield self._of_item("response.function_call_arguments.delta", delta=event.text)
        elif isinstance(event, ToolClose):
            yield from self._close_call()
        elif isinstance(event, Progress):
            yield self._event("response.in_progress", response=self.response)
        elif isinstance(event, Finish):
            yield from self._close("incomplete" if event.reason == "length" else "completed")
            self._finish(event)

    def _call(self, event: ToolOpen) -> dict[str, Any]:
        self._arguments = ""
        tool = self._tools.get(event.name)
        item: dict[str, Any] = {"status": "in_progress", "call_id": event.call_id}
        if tool is not None and tool.kind == SEARCH:
            item |= {"type": "tool_search_call", "execution": "client", "arguments": {}}
        elif tool is not None and tool.kind == CUSTOM:
            item |= {"type": "custom_tool_call", "name": tool.name, "input": ""}
        else:
            name = event.name if tool is None else tool.name
            item |= {"type": "function_call", "name": name, "arguments": ""}
        if tool is not None and tool.namespace is not None:
            item["namespace"] = tool.namespace
        return {"id": new_id(ID_PREFIXES[item["type"]]), **item}

    def _close_call(self) -> Iterator[str]:
        """A call whose input is no JSON text can be told only when all of that is there."""
        assert self._item is not None
        if self._item["type"] == "custom_tool_call":
            self._item["input"] = custom_input(self._arguments)
            yield self._of_item("response.custom_tool_call_input.delta", delta=self._item["input"])
        elif self._item["type"] == "tool_search_call":
            self._item["arguments"] = json.loads(self._arguments)
        yield from self._close()

    def _text(self, event: Text) -> Iterator[str]:
        if not event.text:
            return
        if self._item is None or self._item["type"] != "message":
            yield from self._close()
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {"id": new_id("msg_"), "type": "message", "role": "assistant", "content": []}
            yield from self._open(item | {"status": "in_progress"})
            assert self._item is not None
            self._item["content"].append(part)
            yield self._of_item("response.content_part.added", content_index=0, part=dict(part))
        assert self._item is not None
        logprobs = logprobs_body(event.chances)["content"]
        self._item["content"][0]["text"] += event.text
        self._item["content"][0]["logprobs"] += logprobs
        yield self._of_item(
            "response.output_text.delta", content_index=0, delta=event.text, logprobs=logprobs
        )

    def _reasoning(self, event: Reasoning) -> Iterator[str]:
        if self._item is None or self._item["type"] != "reasoning":
            yield from self._close()
            part = {"type": "reasoning_text", "text": ""}
            yield from self._open(
                {"id": new_id("rs_"), "type": "reasoning", "summary": [], "content": [part]}
            )
        assert self._item is not None
        self._item["content"][0]["text"] += event.text
        yield self._of_item("response.reasoning_text.delta", content_index=0, delta=event.text)

    def _open(self, item: dict[str, Any]) -> Iterator[str]:
        self._item = item
        self.response["output"].append(item)
        place = len(self.response["output"]) - 1
        yield self._event("response.output_item.added", output_index=place, item=item)

    def _close(self, status: str = "completed") -> Iterator[str]:
        item = self._item
        if item is None:
            return
        for kind, values in content_done(item):
            yield self._of_item(kind, **values)
        if item["type"] != "reasoning":
            item["status"] = status
        place = len(self.response["output"]) - 1
        yield self._event("response.output_item.done", output_index=place, item=item)
        self._item = None

    def _finish(self, event: Finish) -> None:
        is_cut = event.reason == "length"
        self.response["status"] = "incomplete" if is_cut else "completed"
        self.response["incomplete_details"] = {"reason": "max_output_tokens"} if is_cut else None
        self.response["completed_at"] = None if is_cut else int(time.time())
        self.response["usage"] = usage_body(event.usage)

    def heartbeat(self) -> Iterable[str]:
        """The response as it is: an event that clients count as one."""
        yield self._event("response.in_progress", response=self.response)

    def take(self, choice: int, event: Event) -> None:
        """Note an event of an answer that nobody is told of while it is made."""
        for _ in self.encode(choice, event):
            pass

    def cancel(self) -> Iterable[str]:
        """The client wants no more of it."""
        yield from self._close("incomplete")
        self.response["status"] = "cancelled"

    def fail(self, failure: Failure) -> None:
        """It cannot go on."""
        otherwise = "server_error" if failure.status >= 500 else "invalid_prompt"
        code = ERROR_CODES.get(failure.code or "", otherwise)
        self.response["status"] = "failed"
        self.response["error"] = {"code": code, "message": failure.message}

    def closing(self) -> Iterable[str]:
        """The whole response."""
        yield self._event(f"response.{self.response['status']}", response=self.response)

    def broken(self, failure: Failure) -> Iterable[str]:
        """The error; the status can no longer change."""
        self.fail(failure)
        yield self._event("response.failed", response=self.response)

    def _of_item(self, kind: str, **values: Any) -> str:
        assert self._item is not None
        place = len(self.response["output"]) - 1
        return self._event(kind, item_id=self._item["id"], output_index=place, **values)

    def _event(self, kind: str, **values: Any) -> str:
        number, self.number = self.number, self.number + 1
        return named({"type": kind, "sequence_number": number, **values})
