"""The answer of ``POST /v1/messages``, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from edgemoe.server.events import Event, Finish, Reasoning, Text, ToolClose, ToolDelta, ToolOpen, Usage
from edgemoe.server.failures import Failure
from edgemoe.server.request import new_id
from edgemoe.server.streaming import named
from edgemoe.server.whole import Whole

STOP_REASONS = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


def usage_body(usage: Usage) -> dict[str, Any]:
    """``usage`` as Anthropic counts it: what came from the cache is not in ``input_tokens``."""
    return {
        "input_tokens": usage.num_prompt - usage.num_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached,
        "output_tokens": usage.num_completion,
        "output_tokens_details": {"thinking_tokens": usage.num_reasoning},
    }


class MessageEncoder:
    """Events as those of a message. The first event of a kind opens a block, the next kind closes it."""

    def __init__(self, model: str, num_prompt: int, request_id: str) -> None:
        self._model = model
        self._num_prompt = num_prompt
        self._request_id = request_id
        self._block = -1
        self._open: str | None = None  # kind of the open block

    def opening(self) -> Iterable[str]:
        """The message without its content."""
        usage = usage_body(Usage(self._num_prompt, 0))
        yield named({"type": "message_start", "message": message_body(self._model, [], None, None, usage)})
        yield named({"type": "ping"})

    def encode(self, choice: int, event: Event) -> Iterable[str]:
        """The events of an event."""
        if isinstance(event, Text):
            if event.text:
                yield from self._in_block("text", {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": event.text})
        elif isinstance(event, Reasoning):
            yield from self._in_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": event.text})
        elif isinstance(event, ToolOpen):
            yield from self._close()
            block = {"type": "tool_use", "id": event.call_id, "name": event.name, "input": {}}
            yield from self._in_block("tool_use", block)
        elif isinstance(event, ToolDelta):
            yield self._delta({"type": "input_json_delta", "partial_json": event.text})
        elif isinstance(event, ToolClose):
            yield from self._close()
        elif isinstance(event, Finish):
            yield from self._finish(event)

    def _in_block(self, kind: str, block: dict[str, Any]) -> Iterator[str]:
        if self._open == kind:
            return
        yield from self._close()
        self._open = kind
        self._block += 1
        yield named({"type": "content_block_start", "index": self._block, "content_block": block})

    def _close(self) -> Iterator[str]:
        if self._open is None:
            return
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        self._open = None
        yield named({"type": "content_block_stop", "index": self._block})

    def _delta(self, delta: dict[str, Any]) -> str:
        return named({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _finish(self, event: Finish) -> Iterator[str]:
        if self._block < 0:  # clients expect at least one block
            yield from self._in_block("text", {"type": "text", "text": ""})
        yield from self._close()
        delta = {"stop_reason": STOP_REASONS[event.reason], "stop_sequence": event.stop_text}
        yield named({"type": "message_delta", "delta": delta, "usage": usage_body(event.usage)})

    def heartbeat(self) -> Iterable[str]:
        """The event that Anthropic's clients know for this."""
        yield named({"type": "ping"})

    def closing(self) -> Iterable[str]:
        """The end."""
        yield named({"type": "message_stop"})

    def broken(self, failure: Failure) -> Iterable[str]:
        """The error; the status can no longer change."""
        body = failure.anthropic(self._request_id)
        yield f"event: error\ndata: {json.dumps(body)}\n\n"


def message_body(
    model: str,
    content: list[dict[str, Any]],
    stop_reason: str | None,
    stop_text: str | None,
    usage: dict[str, Any],
) -> dict[str, Any]:
    """A message."""
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_text,
        "usage": usage,
    }


def whole_body(model: str, whole: Whole) -> dict[str, Any]:
    """A whole message: thoughts, text, then calls."""
    assert whole.finish is not None
    content: list[dict[str, Any]] = []
    if whole.reasoning:
        content.append({"type": "thinking", "thinking": whole.reasoning, "signature": ""})
    if whole.text or not whole.calls:
        content.append({"type": "text", "text": whole.text})
    for call in whole.calls:
        block = {
            "type": "tool_use",
            "id": call.call_id,
            "name": call.name,
            "input": json.loads(call.arguments),
        }
        content.append(block)
    usage = usage_body(whole.finish.usage)
    return message_body(model, content, STOP_REASONS[whole.reason], whole.finish.stop_text, usage)
