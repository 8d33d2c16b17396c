"""One text: its tokens, its state while it has one, and the steps that make it longer.

Letters: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemoe.engine.holding import Holding, common_prefix
from edgemoe.engine.scheduler import Cancelled, Scheduler
from edgemoe.engine.state_file import write_state
from edgemoe.engine.state_pool import StatePool
from edgemoe.engine.steps import Part, StepMaker, TakenBack
from edgemoe.errors import RequestError
from edgemoe.experts import ExpertCounts, LayerObserver, StreamedExperts
from edgemoe.models import Decoder, Encoder
from edgemoe.native import FloatArray
from edgemoe.progress import Progress

Follower = Callable[[int, "Sequence[int]", FloatArray], None]


@dataclass(frozen=True)
class Machinery:
    """What all texts of a model share."""

    decoder: Decoder
    encoder: Encoder | None
    experts: StreamedExperts
    scheduler: Scheduler
    steps: StepMaker
    pool: StatePool
    chunk_size: int  # most tokens of a prompt that pass through a layer together


class Text:
    """Its steps take turns with those of other texts. Used by one thread at a time, but for ``cancel``."""

    def __init__(
        self,
        machinery: Machinery,
        num_slots: int,
        prompt: Sequence[int] = (),
        observer: LayerObserver | None = None,
        *,
        first_slots: int | None = None,
    ) -> None:
        """``num_slots``: the most tokens it may have; it claims room for ``first_slots`` until it has more.
        ``prompt``: what the encoder reads, if there is one.
        """
        self._machinery = machinery
        self._num_slots = num_slots
        self._claimed_slots = num_slots if first_slots is None else min(num_slots, first_slots)
        self._prompt = tuple(prompt)
        self.observer = observer  # told of the layers of this text's steps, and of no others
        self.follower: Follower | None = None  # told where new tokens stand, and of what was made of them
        self._holding: Holding | None = None
        self._cancelled = threading.Event()
        self.token_ids: list[int] = []  # that have been computed, without those that are ahead
        self._ahead: deque[tuple[int, FloatArray]] = deque()  # computed drafts, and the logits after each
        self.last_step: Part | None = None  # that ``step`` made, unless it had to read the text again
        self._is_prepared = False
        self.num_reused = 0  # tokens that the last reading did not compute
        self.counts = ExpertCounts()  # of the steps it took part in

    def read(self, token_ids: Sequence[int], progress: Progress | None = None) -> FloatArray:
        """Make the text exactly these tokens; logits (V,) of what comes after the last.

        ``progress`` (tokens done, of all) is told after each chunk.

        Raises:
            Cancelled: ``cancel`` was called.
            RequestError: the model is closed.
        """
        num_reused = self._begin(token_ids)
        if not self._is_prepared:
            self.num_reused = num_reused
        for _, part in self._chunks(token_ids, progress, has_logits=True):
            chunk = part
        logits: FloatArray = chunk.logits[-1]
        return logits

    def prepare(self, token_ids: Sequence[int]) -> None:
        """Compute all of a text to be read but its last token: others that begin alike can copy it then."""
        self.num_reused, self._is_prepared = self._begin(token_ids), True
        with self._state_for(token_ids) as holding:
            if self._machinery.encoder is not None and not holding.has_read_prompt:
                self._read_prompt(holding)
        if len(self.token_ids) < len(token_ids) - 1:
            for _ in self._chunks(token_ids[:-1]):
                pass

    def save(self, path: Path, token_ids: Sequence[int], weights_id: str) -> None:
        """Write what ``prepare`` computes of these tokens to a file; see ``state_file``.

        Raises:
            RequestError: the model's states cannot be stored, or the file not be written.
        """
        if len(token_ids) == 1 and not self._prompt:
            raise RequestError("a text of one token has nothing to save")
        self.prepare(token_ids)
        with self._state_for(token_ids) as holding:
            write_state(path, holding, weights_id, self._machinery.pool.kv_format)

    def step(self, token_id: int, drafted: Sequence[int] = ()) -> FloatArray:
        """Append one token; logits (V,) of what comes after it. Raises as ``read``.

        Tokens that are ``drafted`` to follow it are computed in the same step, for the calls that append
        them; they are no part of the text until then. With any other token they are forgotten.
        """
        if self.has_ahead(token_id):
            _, logits = self._ahead.popleft()
            self.token_ids.append(token_id)
            return logits
        self._ahead.clear()
        self.last_step = None
        holding = self._holding
        if holding is None or not self._machinery.pool.pin(holding, len(self.token_ids)):
            return self.read([*self.token_ids, token_id])  # its room was needed
        is_within = len(self.token_ids) + 1 + len(drafted) <= self._claimed_slots
        try:
            if is_within and len(holding.token_ids) == len(self.token_ids):
                return self._answer(holding, token_id, drafted)
        except TakenBack:
            pass
        finally:
            self._machinery.pool.unpin(holding)
        if not is_within:
            self._claim_all(holding)
        return self.read([*self.token_ids, token_id])  # or a step that failed took it back

    def _claim_all(self, holding: Holding) -> None:
        """End the text, to go on from where it is with room for all of it: who waits for room holds none."""
        self._claimed_slots, self._holding = self._num_slots, None
        self._machinery.steps.ended(holding)
        self._machinery.pool.give_back(holding)

    def has_ahead(self, token_id: int) -> bool:
        """Whether the next token was drafted to be this one, so that appending it takes no step."""
        return bool(self._ahead) and self._ahead[0][0] == token_id

    @property
    def most_drafted(self) -> int:
        """Tokens that may be drafted to follow the next one; the last one's logits are of some use."""
        room = min(self._num_slots, self._machinery.pool.context) - len(self.token_ids) - 2
        return max(0, min(self._machinery.steps.most_rows - 1, room))

    def states(self, token_ids: Sequence[int]) -> Iterator[FloatArray]:
        """Hidden states (T, D) of these tokens, all computed anew, chunk by chunk."""
        self.close(is_kept=False)
        self._begin(token_ids, is_reusing=False)
        done = 0
        for start, part in self._chunks(token_ids):
            end = start + len(part.hidden)
            if end > done:  # else computed again: its room was needed
                yield part.hidden[max(0, done - start) :]
                done = end

    def cancel(self) -> None:
        """End the text before its next step; from any thread."""
        self._cancelled.set()
        self._machinery.scheduler.wake()

    @property
    def is_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled.is_set()

    def close(self, *, is_kept: bool = True) -> None:
        """Give its room back; what was computed is kept for texts that begin alike, while room lasts."""
        holding, self._holding = self._holding, None
        self._ahead.clear()
        if holding is not None:
            self._machinery.steps.ended(holding)
            self._machinery.pool.give_back(holding, is_kept=is_kept)
        self.token_ids = []

    def __del__(self) -> None:
        holding = getattr(self, "_holding", None)
        if holding is not None:
            self._machinery.steps.ended(holding)
            self._machinery.pool.leave(holding)

    def _begin(self, token_ids: Sequence[int], *, is_reusing: bool = True) -> int:
        """Have a state that holds a beginning of these tokens; how many need not be read again."""
        with self._state_for(token_ids, is_reusing=is_reusing) as holding:
            return len(self._prompt) if holding.has_read_prompt else len(holding.token_ids)

    @contextmanager
    def _state_for(self, token_ids: Sequence[int], *, is_reusing: bool = True) -> Iterator[Holding]:
        """A state, pinned, that holds a beginning of these tokens; ``token_ids`` of the text are that."""
        pool, holding = self._machinery.pool, self._holding
        if holding is None or not pool.pin(holding, _num_common(holding, token_ids)):
            holding = self._holding = pool.borrow(
                self._prompt, token_ids, self._claimed_slots, self._cancelled.is_set, is_reusing=is_reusing
            )
        try:
            self.token_ids = list(holding.token_ids)
            yield holding
        finally:
            pool.unpin(holding)

    def _chunks(
        self, token_ids: Sequence[int], progress: Progress | None = None, *, has_logits: bool = False
    ) -> Iterator[tuple[int, Part]]:
        """Where each chunk of what is missing begins, and what the model makes of it.

        An interrupted chunk leaves the text as it was. No room is held on to between chunks. ``has_logits``:
        of the last chunk.
        """
        total, size = len(token_ids), self._machinery.chunk_size
        is_over = False
        while not is_over:
            with self._state_for(token_ids) as holding:
                is_reading = self._machinery.encoder is not None and not holding.has_read_prompt
                if is_reading:
                    self._read_prompt(holding)
                else:
                    start = len(holding.token_ids)
                    is_over = start + size >= total
                    chunk = list(token_ids[start : start + size])
                    try:
                        part = self._extend(holding, chunk, has_logits=has_logits and is_over)
                    except TakenBack:
                        is_over = False
                        continue
            if progress is not None and (is_reading or not self._prompt):
                done = len(self._prompt) if is_reading else len(self.token_ids)
                progress(done, done if is_reading else total)
            if not is_reading:
                yield start, part

    def _answer(self, holding: Holding, token_id: int, drafted: Sequence[int]) -> FloatArray:
        """A token and those drafted after it; logits (V,) after the first."""
        chunk = [token_id, *drafted]
        part = self._extend(holding, chunk, is_answer=True, has_logits=True, num_drafted=len(drafted))
        if drafted:
            self._ahead.extend(zip(drafted, part.logits[1:], strict=True))
        self.last_step = part
        after: FloatArray = part.logits[0]
        return after

    def _extend(
        self,
        holding: Holding,
        chunk: Sequence[int],
        *,
        is_answer: bool = False,
        has_logits: bool = False,
        num_drafted: int = 0,
    ) -> Part:
        """The next tokens, in a step that other texts may take part in.

        Raises:
            TakenBack: a step with others failed, and the text does not go on from where it was.
        """
        part = Part(
            holding,
            chunk,
            self._cancelled.is_set,
            is_answer=is_answer,
            has_logits=has_logits,
            is_tentative=num_drafted > 0,
            observer=self.observer,
        )
        if self._cancelled.is_set():
            raise Cancelled
        self._machinery.scheduler.run(part, self._machinery.steps)
        self.token_ids += chunk[: len(chunk) - num_drafted]
        self.counts += part.counts
        if self.follower is not None:
            self.follower(len(holding.token_ids) - len(chunk), chunk, part.hidden)
        return part

    def _read_prompt(self, holding: Holding) -> None:
        """Let the encoder read; an interrupted reading does not pass for a complete one."""
        encoder, decoder = self._machinery.encoder, self._machinery.decoder
        assert encoder is not None, "only a model with an encoder has such a prompt"
        experts = self._machinery.experts
        with self._machinery.scheduler.turn(self._cancelled.is_set):
            before, observer = experts.counts, experts.observer
            if self.observer is not None:
                experts.observer = self.observer
            try:
                decoder.begin(encoder.forward(np.asarray(self._prompt, np.int32)), holding.state)
                holding.has_read_prompt = True
            finally:
                experts.observer = observer
                self.counts += experts.counts - before


def _num_common(holding: Holding, token_ids: Sequence[int]) -> int:
    """Tokens of a text to be read that a state has already; its last is computed anyway."""
    return min(common_prefix(holding.token_ids, token_ids), len(token_ids) - 1)
