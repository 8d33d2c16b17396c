"""A loaded model as the server sees it: prompts in, tokens with their text out, one thread per answer.

Everything the server asks of the engine goes through this file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemoe.api import Model
from edgemoe.server.events import TokenChance
from edgemoe.text.stream import StreamDecoder
from edgemoe.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Token:
    """One token of an answer and the text that became whole with it."""

    text: str
    token_id: int | None  # None: text that was held back until no token could change it
    chance: TokenChance | None = None


@dataclass(frozen=True)
class Reading:
    """So many of the prompt's tokens are read."""

    done: int
    total: int


@dataclass(frozen=True)
class End:
    """The answer ended: "stop", "length" or "cancelled"; what it cost, or the error that ended it."""

    reason: str
    num_cached: int = 0
    timings: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


Piece = Token | Reading | End


@dataclass(frozen=True)
class Job:
    """What the engine is to do for one answer."""

    token_ids: Sequence[int]
    max_tokens: int
    draw: Mapping[str, Any]
    stop_ids: frozenset[int]


class LocalModel:
    """A model that is in memory under the name that clients know it by."""

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        self.model = model
        self.loaded_at = int(time.time())
        self.turn_end_ids = model.tokenizer.turn_end_ids() if model.tokenizer.is_available else frozenset()

        self.template = "\n".join(model.tokenizer.template_sources())

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.model.memory.context

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any],
    ) -> str:
        """The conversation as the chat template writes it, up to where the answer begins.

        Raises:
            RequestError: there is no template, or it refuses the conversation.
        """
        return self.model.tokenizer.render_chat(messages, tools, None, **options)

    def run(self, job: Job, emit: Callable[[Piece], None], cancelled: threading.Event) -> None:
        """Write one answer, in the calling thread. The last piece is an ``End``, whatever happens."""
        try:
            emit(self._run(job, emit, cancelled))
        except BaseException as error:
            emit(End("error", error=error))

    def _run(self, job: Job, emit: Callable[[Piece], None], cancelled: threading.Event) -> End:
        decoder = StreamDecoder(_Marked(self.model.tokenizer), job.token_ids)
        stream = self.model.stream(job.token_ids, max_tokens=job.max_tokens, **job.draw)
        reason = "length"
        for chunk in stream:
            (token_id,) = chunk.token_ids
            if cancelled.is_set():
                reason = "cancelled"
                break
            if token_id in job.stop_ids:
                reason = "stop"
                break
            emit(Token(decoder.push(token_id), token_id))
        stream.close()
        if rest := decoder.flush():
            emit(Token(rest, None))
        generation = stream.generation
        if generation.finish_reason == "stop" and reason == "length":
            reason = "stop"
        return End(reason, 0, _timings(generation))


class _Marked:
    """A tokenizer that writes special tokens out: by them models mark thoughts and calls of functions."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.reach = tokenizer.reach

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the tokens."""
        return self._tokenizer.decode_all(token_ids) if self._tokenizer.is_available else ""

    def shows(self, token_id: int) -> bool:
        """All are shown."""
        return True


def _timings(generation: Any) -> dict[str, Any]:
    """What an answer cost, by the names of llama.cpp's server where it has one."""
    predicted = len(generation.token_ids)
    prompt_s = generation.time_to_first_token_s
    rate = generation.decode_tokens_per_s
    return {
        "prompt_n": generation.num_prompt_tokens,
        "prompt_ms": round(prompt_s * 1000, 3),
        "prompt_per_second": round(generation.prefill_tokens_per_s, 3),
        "predicted_n": predicted,
        "predicted_ms": round((predicted - 1) / rate * 1000, 3) if rate else 0.0,
        "predicted_per_second": round(rate, 3),
        "expert_hits": generation.expert_hits,
        "expert_misses": generation.expert_misses,
        "bytes_read": generation.bytes_read,
        "wasted_bytes": generation.wasted_bytes,
        "waited_ms": round(generation.waited_s * 1000, 3),
    }
