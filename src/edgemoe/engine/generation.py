"""Writing an answer token by token, and what it cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgemoe.engine.answer import Chunk, Generation, Request
from edgemoe.engine.drafting import Room
from edgemoe.engine.loading import Engine
from edgemoe.engine.machine import peak_resident_bytes, resident_bytes
from edgemoe.engine.scheduler import Cancelled
from edgemoe.engine.stats import Stats
from edgemoe.engine.writer import Writer
from edgemoe.errors import RequestError
from edgemoe.experts import LayerObserver
from edgemoe.native import FloatArray


class Stream(Iterator[Chunk]):
    """An answer being written: iterate over its chunks; ``generation`` is the answer so far.

    Any number of streams may be open, in one thread or in many; one that is not iterated costs nothing but
    its room. Leaving it as a context manager ends it.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        """Nothing is computed yet.

        Raises:
            RequestError: the prompt does not fit, or a token of it or of ``logit_bias`` does not exist.
        """
        request.sampling.check(engine.spec.vocab_size)
        self._engine = engine
        self._request = request
        self._text, self._begins_with = engine.session.open(request.token_ids, request.max_tokens)
        self._writer = Writer(engine, request)
        text = self._text
        self._drafts = engine.drafting.begin(Room(self.num_tokens, lambda: text.is_cancelled))
        if self._drafts is not None:
            text.follower = self._drafts.observe
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = self._started_s
        self._num_cached = 0
        self._finish_reason = "interrupted"
        self._lock = threading.RLock()  # of one step
        self._is_stepping = False
        self._is_over = False

    def __next__(self) -> Chunk:
        """The next piece.

        Raises:
            StopIteration: the answer has ended, or was closed or cancelled.
            RequestError: the model was closed.
        """
        if self._engine.session.is_forked:
            self._engine.session.check_usable()  # before the lock, which a thread of the parent may hold
        with self._lock:
            if self._is_stepping:
                raise RequestError("the stream is asked for its next chunk while it is making one")
            if self._is_over:
                raise StopIteration
            self._is_stepping = True
            try:
                return self._step()
            except BaseException as error:
                self._end()
                if isinstance(error, Cancelled):
                    self._finish_reason = "cancelled"
                    raise StopIteration from None
                raise
            finally:
                self._is_stepping = False

    def prepare(self) -> None:
        """Read the prompt, as far as its answer does not need it, without writing anything yet."""
        with self._lock:
            self._text.prepare(self._begins_with)

    @property
    def num_tokens(self) -> int:
        """The most that prompt and answer may be together."""
        return len(self._request.token_ids) + self._request.max_tokens

    @property
    def num_common(self) -> int:
        """Tokens that are computed once for several answers to this prompt: what ``prepare`` reads."""
        return len(self._begins_with) - 1

    def cancel(self) -> None:
        """End the answer before its next step (of its prompt: before the next chunk), from any thread.

        Whoever iterates over it gets no more chunks; ``finish_reason`` is "cancelled".
        """
        self._text.cancel()
        self._end_unless_stepping()

    def close(self) -> None:
        """End the answer here; where another thread is making a step of it, after that step."""
        if self._engine.session.is_forked:
            return
        self._text.cancel()
        with self._lock:
            if not self._is_stepping:
                self._end()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def observer(self) -> LayerObserver | None:
        """What is told of the layers of this answer's steps, and of no others."""
        return self._text.observer

    @observer.setter
    def observer(self, observer: LayerObserver | None) -> None:
        self._text.observer = observer

    @property
    def generation(self) -> Generation:
        """The answer so far; complete once the iteration has ended."""
        counts, num_read = self._text.counts, len(self._request.token_ids) - self._num_cached
        first_s = (self._first_s or self._last_s) - self._started_s
        return Generation(
            text="".join(self._writer.text),
            token_ids=list(self._writer.token_ids),
            num_prompt_tokens=len(self._request.token_ids),
            num_cached_tokens=self._num_cached,
            prefill_tokens_per_s=num_read / first_s if first_s > 0 and self._first_s else 0.0,
            decode_tokens_per_s=self._decode_rate(),
            time_to_first_token_s=first_s,
            peak_rss_bytes=peak_resident_bytes(),
            budget_bytes=self._engine.memory.budget_bytes,
            expert_hits=counts.hits,
            expert_misses=counts.misses,
            bytes_read=counts.bytes_read,
            wasted_bytes=counts.wasted_bytes,
            waited_s=counts.waited_s,
            far_bytes=counts.far_bytes,
            tier_bytes=counts.tier_bytes,
            finish_reason=self._finish_reason,
            logprobs=list(self._writer.logprobs),
            num_drafted=self._drafts.counts.num_drafted if self._drafts else 0,
            num_accepted=self._drafts.counts.num_accepted if self._drafts else 0,
        )

    def _decode_rate(self) -> float:
        elapsed_s = self._last_s - (self._first_s or self._last_s)
        return (len(self._writer.token_ids) - 1) / elapsed_s if elapsed_s > 0 else 0.0

    def _step(self) -> Chunk:
        """Draw the next token, and say what it adds to the text."""
        if self._first_s is None:
            logits = self._text.read(self._begins_with, self._request.progress)
            self._num_cached = self._text.num_reused
        else:
            logits = self._next_logits(self._writer.token_ids[-1])
        if self._text.is_cancelled:
            raise Cancelled
        with self._engine.session.drawing:
            text, reason = self._writer.write(logits, self._text.token_ids, self._is_full())
        self._last_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._last_s
        if reason is not None:
            self._finish_reason = reason
            if self._drafts is not None:
                self._drafts.judge(self._writer.token_ids[-1])
            self._end()
        return Chunk(
            text,
            tuple(self._writer.token_ids[-1:]),
            self._decode_rate(),
            self._last_s - self._started_s,
            current_stats(self._engine),
            tuple(self._writer.logprobs[-1:]),
        )

    def _next_logits(self, token_id: int) -> FloatArray:
        """Logits (V,) after a token, from a step that may try drafts; not where layers are watched."""
        if self._drafts is None or self._text.observer is not None:
            return self._text.step(token_id)
        return self._drafts.step(self._text, token_id)

    def _is_full(self) -> bool:
        """Whether the token that comes next is the last there is room for."""
        return len(self._text.token_ids) >= self._engine.session.num_slots

    def _end_unless_stepping(self) -> None:
        """Give the room back at once, unless a step is being made: then it does so itself."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._is_stepping and not self._is_over:
                    self._finish_reason = "cancelled"
                    self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        self._is_over = True
        self._text.close()
        if self._drafts is not None:
            self._drafts.close()


def current_stats(engine: Engine) -> Stats:
    """Counts and memory now."""
    counts = engine.experts.counts
    joules = engine.energy.joules(counts.hits + counts.misses, counts.bytes_read)
    return Stats(
        expert_hits=counts.hits,
        expert_misses=counts.misses,
        bytes_read=counts.bytes_read,
        wasted_bytes=counts.wasted_bytes,
        waited_s=counts.waited_s,
        resident_bytes=resident_bytes(),
        budget_bytes=engine.memory.budget_bytes,
        far_bytes=counts.far_bytes,
        tier_bytes=counts.tier_bytes,
        joules=joules,
        energy_source=engine.energy.source,
        num_drafted=engine.drafting.totals.num_drafted,
        num_accepted=engine.drafting.totals.num_accepted,
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
