"""The answer of ``POST /v1/chat/completions``, streamed and whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgemoe.server.events import (
    Counted,
    Event,
    Finish,
    Progress,
    Reasoning,
    Text,
    TokenChance,
    ToolDelta,
    ToolOpen,
    Usage,
)
from edgemoe.server.failures import Failure
from edgemoe.server.request import new_id
from edgemoe.server.streaming import data, dump
from edgemoe.server.whole import Whole, usage_of

FINISH_REASONS = {"stop": "stop", "stop_sequence": "stop", "length": "length", "tool_calls": "tool_calls"}
DONE = "data: [DONE]\n\n"


def usage_body(usage: Usage) -> dict[str, Any]:
    """``usage`` as OpenAI counts it."""
    return {
        "prompt_tokens": usage.num_prompt,
        "completion_tokens": usage.num_completion,
        "total_tokens": usage.num_prompt + usage.num_completion,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached},
        "completion_tokens_details": {"reasoning_tokens": usage.num_reasoning},
    }


def usage_so_far(count: Counted | Usage) -> dict[str, Any]:
    """``usage`` of a chunk, as vLLM has it."""
    total = count.num_prompt + count.num_completion
    return {
        "prompt_tokens": count.num_prompt,
        "completion_tokens": count.num_completion,
        "total_tokens": total,
    }


def logprobs_body(chances: Sequence[TokenChance]) -> dict[str, Any]:
    """``logprobs`` of a choice."""
    told = [
        _chance(chance.written, chance.logprob or 0.0)
        | {"top_logprobs": [_chance(*top) for top in chance.top]}
        for chance in chances
    ]
    return {"content": told, "refusal": None}


def _chance(written: bytes, logprob: float) -> dict[str, Any]:
    text = written.decode("utf-8", "replace")
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(written)}


class ChatEncoder:
    """Events as chat completion chunks."""

    def __init__(self, model: str, *, num_choices: int, includes_usage: bool, reports_progress: bool) -> None:
        self._head: dict[str, Any] = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "edgemoe",
        }
        self.head = {key: self._head[key] for key in ("id", "created", "model")}
        self._num_choices = num_choices
        if includes_usage:
            self._head["usage"] = None  # as the API has it in all chunks but the last
        self._includes_usage = includes_usage
        self._reports_progress = reports_progress
        self._usages: list[Usage] = []
        # What stands before a piece of text in a chunk, by choice: most chunks differ in nothing else.
        self._before_text = [self._split_chunk(choice)[0] for choice in range(num_choices)]
        self._after_text = self._split_chunk(0)[1]

    def _split_chunk(self, choice: int) -> tuple[str, str]:
        before, after = self._chunk(choice, {"content": ""}).split('"content":""')
        return f'{before}"content":', after

    def opening(self) -> Iterable[str]:
        """The role of each choice, before anything is computed."""
        for choice in range(self._num_choices):
            yield self._chunk(choice, {"role": "assistant", "content": None})

    def encode(self, choice: int, event: Event) -> Iterable[str]:
        """The chunks of an event."""
        if isinstance(event, Counted):
            self._head["usage"] = usage_so_far(event)
        elif isinstance(event, Text):
            if event.chances or self._head.get("usage"):
                logprobs = logprobs_body(event.chances) if event.chances else None
                yield self._chunk(choice, {"content": event.text}, logprobs=logprobs)
            else:
                yield f"{self._before_text[choice]}{dump(event.text)}{self._after_text}"
        elif isinstance(event, Reasoning):
            yield self._chunk(choice, {"reasoning_content": event.text})
        elif isinstance(event, ToolOpen):
            function = {"name": event.name, "arguments": ""}
            call = {"index": event.index, "id": event.call_id, "type": "function", "function": function}
            yield self._chunk(choice, {"tool_calls": [call]})
        elif isinstance(event, ToolDelta):
            call = {"index": event.index, "function": {"arguments": event.text}}
            yield self._chunk(choice, {"tool_calls": [call]})
        elif isinstance(event, Progress):
            yield from self._progress(event)
        elif isinstance(event, Finish):
            yield from self._finish(choice, event)

    def _progress(self, event: Progress) -> Iterator[str]:
        if self._reports_progress:
            progress = {"total": event.total, "processed": event.done}
            progress["time_ms"] = round(event.elapsed_s * 1000)
            yield data(self._head | {"choices": [], "prompt_progress": progress})

    def _finish(self, choice: int, event: Finish) -> Iterator[str]:
        self._usages.append(event.usage)
        if self._head.get("usage"):
            self._head["usage"] = usage_so_far(event.usage)
        reason = FINISH_REASONS[event.reason]
        yield self._chunk(choice, {}, reason, timings=dict(event.usage.timings))

    def heartbeat(self) -> Iterable[str]:
        """A comment for proxies, and a chunk that adds nothing for clients that skip comments."""
        yield f": ping\n\n{self._chunk(0, {})}"

    def closing(self) -> Iterable[str]:
        """The usage, to those who asked for it, then the end mark."""
        if self._includes_usage and self._usages:
            usage = usage_body(Usage.total(self._usages, self._num_choices))
            yield data(self._head | {"choices": [], "usage": usage})
        yield DONE

    def broken(self, failure: Failure) -> Iterable[str]:
        """The error; the status can no longer change."""
        yield data(failure.openai())
        yield DONE

    def _chunk(
        self,
        choice: int,
        delta: Mapping[str, Any],
        reason: str | None = None,
        *,
        logprobs: Mapping[str, Any] | None = None,
        timings: Mapping[str, Any] | None = None,
    ) -> str:
        entry = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return data(self._head | {"choices": [entry]} | ({"timings": timings} if timings else {}))


def chat_body(model: str, wholes: list[Whole]) -> dict[str, Any]:
    """A whole chat completion."""
    usage = usage_of(wholes, len(wholes))
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": "edgemoe",
        "choices": [_choice(place, whole) for place, whole in enumerate(wholes)],
        "usage": usage_body(usage),
        "timings": dict(usage.timings),
    }


def _choice(place: int, whole: Whole) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": whole.text or None, "refusal": None}
    if not whole.calls and not whole.reasoning:
        message["content"] = whole.text
    if whole.reasoning:
        message["reasoning_content"] = whole.reasoning
    if whole.calls:
        message["tool_calls"] = [
            {"id": c.call_id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in whole.calls
        ]
    return {
        "index": place,
        "message": message,
        "logprobs": logprobs_body(whole.chances) if whole.chances else None,
        "finish_reason": FINISH_REASONS[whole.reason],
    }
