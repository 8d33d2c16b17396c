"""The answer of ``POST /v1/completions``, streamed and whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from edgemoe.server.events import Counted, Event, Finish, Progress, Text, TokenChance, Usage
from edgemoe.server.failures import Failure
from edgemoe.server.openai.chat_answer import DONE, FINISH_REASONS, usage_body, usage_so_far
from edgemoe.server.request import new_id
from edgemoe.server.streaming import data
from edgemoe.server.whole import Whole, usage_of


def logprobs_body(chances: Sequence[TokenChance], offset: int = 0) -> dict[str, Any]:
    """``logprobs`` as this older API has them; null for a first token, which nothing foretells."""
    offsets = []
    for chance in chances:
        offsets.append(offset)
        offset += _num_characters(chance)
    return {
        "tokens": [_name(chance.written) for chance in chances],
        "token_logprobs": [chance.logprob for chance in chances],
        "top_logprobs": [_top(chance) for chance in chances],
        "text_offset": offsets,
    }


def _top(chance: TokenChance) -> dict[str, float] | None:
    """The likeliest tokens, the drawn one among them."""
    if chance.logprob is None:
        return None
    return {_name(written): value for written, value in (*chance.top, (chance.written, chance.logprob))}


def _name(written: bytes) -> str:
    """A token's text; of a piece of a character its bytes, in the API's words."""
    try:
        return written.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)


def _num_characters(chance: TokenChance) -> int:
    """Characters that begin in a token."""
    return sum(byte & 0xC0 != 0x80 for byte in chance.written)


class CompletionsEncoder:
    """Events as completion chunks."""

    def __init__(self, model: str, *, per_prompt: int, includes_usage: bool, reports_progress: bool) -> None:
        """``per_prompt``: answers to each prompt."""
        self._head: dict[str, Any] = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        if includes_usage:
            self._head["usage"] = None  # as the API has it in all chunks but the last
        self._includes_usage = includes_usage
        self._reports_progress = reports_progress
        self._per_prompt = per_prompt
        self._usages: list[Usage] = []
        self._offsets: dict[int, int] = {}  # characters of each answer so far, in its tokens

    def opening(self) -> Iterable[str]:
        """Nothing but a sign of life."""
        yield ": ok\n\n"

    def encode(self, choice: int, event: Event) -> Iterable[str]:
        """The chunks of an event."""
        if isinstance(event, Counted):
            self._head["usage"] = usage_so_far(event)
        elif isinstance(event, Text):
            extra = {"logprobs": self._logprobs(choice, event.chances)} if event.chances else {}
            yield self._chunk(choice, event.text, None, **extra)
        elif isinstance(event, Finish):
            self._usages.append(event.usage)
            if self._head.get("usage"):
                self._head["usage"] = usage_so_far(event.usage)
            yield self._chunk(choice, "", FINISH_REASONS[event.reason])
        elif isinstance(event, Progress) and self._reports_progress:
            progress = {"total": event.total, "processed": event.done}
            progress["time_ms"] = round(event.elapsed_s * 1000)
            yield data(self._head | {"choices": [], "prompt_progress": progress})

    def _logprobs(self, choice: int, chances: Sequence[TokenChance]) -> dict[str, Any]:
        offset = self._offsets.get(choice, 0)
        self._offsets[choice] = offset + sum(map(_num_characters, chances))
        return logprobs_body(chances, offset)

    def heartbeat(self) -> Iterable[str]:
        """A comment for proxies, and a chunk that adds nothing."""
        yield f": ping\n\n{self._chunk(0, '', None)}"

    def closing(self) -> Iterable[str]:
        """The usage, to those who asked for it, then the end mark."""
        if self._includes_usage and self._usages:
            usage = usage_body(Usage.total(self._usages, self._per_prompt))
            yield data(self._head | {"choices": [], "usage": usage})
        yield DONE

    def broken(self, failure: Failure) -> Iterable[str]:
        """The error; the status can no longer change."""
        yield data(failure.openai())
        yield DONE

    def _chunk(self, choice: int, text: str, reason: str | None, **extra: Any) -> str:
        entry = {"index": choice, "text": text, "logprobs": None, "finish_reason": reason} | extra
        return data(self._head | {"choices": [entry]})


def completions_body(model: str, wholes: list[Whole], per_prompt: int) -> dict[str, Any]:
    """A whole completion, with so many answers to each prompt."""
    usage = usage_of(wholes, per_prompt)
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(place, whole) for place, whole in enumerate(wholes)],
        "usage": usage_body(usage),
        "timings": dict(usage.timings),
    }


def _choice(place: int, whole: Whole) -> dict[str, Any]:
    return {
        "index": place,
        "text": whole.text,
        "logprobs": logprobs_body(whole.chances) if whole.chances else None,
        "finish_reason": FINISH_REASONS[whole.reason],
    }
