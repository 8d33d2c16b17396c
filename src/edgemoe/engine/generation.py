"""Writing an answer token by token, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgemoe.engine.loading import Engine
from edgemoe.engine.machine import peak_resident_bytes, resident_bytes
from edgemoe.engine.sampling import Sampling, sample
from edgemoe.engine.stats import Stats
from edgemoe.errors import RequestError
from edgemoe.text import StopScanner, StreamDecoder


@dataclass(frozen=True)
class Request:
    """What to answer: the prompt's tokens, and how the answer is drawn and ended."""

    token_ids: Sequence[int]
    max_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()
    stop_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise RequestError(f"max_tokens is {self.max_tokens}; it must be at least 1")


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer: text (whole characters, maybe none), its tokens, and the costs so far."""

    text: str
    token_ids: tuple[int, ...]
    decode_tokens_per_s: float
    elapsed_s: float  # since the request
    stats: Stats


@dataclass(frozen=True)
class Generation:
    """An answer and what it cost. ``finish_reason`` is "stop", "length" or "interrupted"."""

    text: str
    token_ids: list[int]
    num_prompt_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    time_to_first_token_s: float
    peak_rss_bytes: int
    budget_bytes: int
    expert_hits: int
    expert_misses: int
    bytes_read: int
    wasted_bytes: int
    waited_s: float
    finish_reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Stream(Iterator[Chunk]):
    """An answer being written: iterate over its chunks; ``generation`` is what there is of it so far."""

    def __init__(self, engine: Engine, request: Request) -> None:
        engine.session.check(request.token_ids)
        self._engine = engine
        self._request = request
        self._before = current_stats(engine)
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = self._started_s
        self._num_prefilled = 0
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._finish_reason = "interrupted"
        self._chunks = self._write()

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def close(self) -> None:
        """End the answer here."""
        self._chunks.close()

    @property
    def generation(self) -> Generation:
        """The answer so far; complete once the iteration has ended."""
        stats, before = current_stats(self._engine), self._before
        first_s = (self._first_s or self._last_s) - self._started_s
        return Generation(
            text="".join(self._text),
            token_ids=list(self._token_ids),
            num_prompt_tokens=len(self._request.token_ids),
            prefill_tokens_per_s=self._num_prefilled / first_s if first_s > 0 else 0.0,
            decode_tokens_per_s=self._decode_rate(),
            time_to_first_token_s=first_s,
            peak_rss_bytes=peak_resident_bytes(),
            budget_bytes=self._engine.memory.budget_bytes,
            expert_hits=stats.expert_hits - before.expert_hits,
            expert_misses=stats.expert_misses - before.expert_misses,
            bytes_read=stats.bytes_read - before.bytes_read,
            wasted_bytes=stats.wasted_bytes - before.wasted_bytes,
            waited_s=stats.waited_s - before.waited_s,
            finish_reason=self._finish_reason,
        )

    def _decode_rate(self) -> float:
        elapsed_s = self._last_s - (self._first_s or self._last_s)
        return (len(self._token_ids) - 1) / elapsed_s if elapsed_s > 0 else 0.0

    def _write(self) -> Generator[Chunk, None, None]:
        request, session = self._request, self._engine.session
        scanner = StopScanner(request.stop)
        tokenizer = self._engine.tokenizer
        has_text = tokenizer.is_available
        # An encoder reads the prompt; the answer then follows nothing.
        context = () if self._engine.spec.has_encoder or not has_text else request.token_ids
        decoder = StreamDecoder(tokenizer, context)
        generator = request.sampling.generator()
        logits = session.prefill(request.token_ids)
        self._num_prefilled = len(request.token_ids) - session.num_reused
        while True:
            token_id = sample(logits, request.sampling, generator, session.token_ids)
            self._last_s = time.monotonic()
            if self._first_s is None:
                self._first_s = self._last_s
            self._token_ids.append(token_id)
            is_end = token_id in request.stop_ids
            text = scanner.push(decoder.push(token_id)) if has_text and not is_end else ""
            if is_end or scanner.is_stopped:
                self._finish_reason = "stop"
            elif self._is_full():
                self._finish_reason = "length"
            is_last = self._finish_reason != "interrupted"
            if is_last and has_text and not scanner.is_stopped:
                text += scanner.push(decoder.flush()) + scanner.flush()
            self._text.append(text)
            elapsed_s = self._last_s - self._started_s
            yield Chunk(text, (token_id,), self._decode_rate(), elapsed_s, current_stats(self._engine))
            if is_last:
                return
            logits = session.step(token_id)

    def _is_full(self) -> bool:
        return len(self._token_ids) >= self._request.max_tokens or self._engine.session.is_full


def current_stats(engine: Engine) -> Stats:
    """Counts and memory now."""
    counts = engine.experts.counts
    return Stats(
        expert_hits=counts.hits,
        expert_misses=counts.misses,
        bytes_read=counts.bytes_read,
        wasted_bytes=counts.wasted_bytes,
        waited_s=counts.waited_s,
        resident_bytes=resident_bytes(),
        budget_bytes=engine.memory.budget_bytes,
    )


def collect_logits(
    engine: Engine, token_ids: Sequence[int], decoder_token_ids: Sequence[int] | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits (T, V) of all positions; the result is the caller's memory, not counted in the budget.

    Errors as in ``Session.all_logits``.
    """
    rows = engine.session.all_logits(token_ids, decoder_token_ids)
    wanted = token_ids if decoder_token_ids is None else decoder_token_ids
    out = np.empty((len(wanted), engine.spec.vocab_size), np.float32)
    row = 0
    for logits in rows:
        out[row : row + len(logits)] = logits
        row += len(logits)
    return out
