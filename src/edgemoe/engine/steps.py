"""Steps of several texts: their rows go through the model together, once, and are given back to their texts.

Letters: T rows of a step, D width, V vocabulary.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edgemoe.engine import batch
from edgemoe.engine.batch import Limits, Wish
from edgemoe.engine.company import Company
from edgemoe.engine.holding import Holding
from edgemoe.engine.scheduler import Job
from edgemoe.engine.state_pool import StatePool
from edgemoe.experts import ExpertCounts, LayerObserver, StreamedExperts
from edgemoe.models import Decoder, Segment
from edgemoe.models.layer_state import MAX_TENTATIVE_ROWS

NOTHING, NO_COUNTS = np.empty((0, 0), np.float32), ExpertCounts()
# Weight of the newest step in the means.
NEWEST = 0.1


class LastToken(NamedTuple):
    """When a text had a token: the time, and the number of the step among those of answers."""

    at_s: float
    step: int


class TakenBack(Exception):
    """A text has got shorter since it asked for a step, and has to be read again. Never leaves the engine."""


class Part(Job):
    """The next tokens of one text, and what the model makes of them."""

    def __init__(
        self,
        holding: Holding,
        token_ids: Sequence[int],
        is_cancelled: Callable[[], bool],
        *,
        is_answer: bool,
        has_logits: bool,
        is_tentative: bool = False,
        observer: LayerObserver | None = None,
    ) -> None:
        """``has_logits``: those after the last token are wanted. ``observer`` is told of the layers.

        ``is_tentative``: all but the first token may be taken back, and logits after each are wanted.
        """
        super().__init__(Wish(len(token_ids), is_answer, observer is not None), is_cancelled)
        self.holding = holding
        self.start = len(holding.token_ids)
        self.token_ids = token_ids
        self.num_logits = len(token_ids) if is_tentative else int(has_logits)  # of the last tokens
        self.is_tentative = is_tentative
        self.observer = observer
        self.hidden = NOTHING  # (T, D), after the last norm
        self.logits = NOTHING  # (1, V), or (T, V) of tentative tokens
        self.counts = NO_COUNTS  # of the step
        self.took_s = 0.0  # the step
        self.has_company = False  # of other texts in it


class StepMaker:
    """See Maker. Keeps what steps take."""

    def __init__(
        self,
        decoder: Decoder,
        experts: StreamedExperts,
        pool: StatePool,
        most: Limits,
        is_batched: bool,
        answers_at_once: int | None = None,
    ) -> None:
        """``most``: rows and answers that memory allows. ``is_batched``: rows of several texts share a step.

        ``answers_at_once`` takes the place of the rule that says how many answers pay.
        """
        self._decoder = decoder
        self._experts = experts
        self._pool = pool
        self._most = most
        self._answers_at_once = answers_at_once
        self._is_batched = is_batched
        self._token_s = 0.0  # mean time of a step of answers
        self._lone_chunk = batch.LoneChunk()  # the last one
        self._waiting_share = 1.0  # of that, waiting for storage
        self._num_owed = 0
        self._num_steps = 0  # of answers alone
        self._answering: dict[int, LastToken] = {}  # texts, by the id of their states
        self._companies: defaultdict[int, Company] = defaultdict(Company)  # by about how many texts there are
        self._ended_s = 0.0  # when a step of answers alone ended that nothing else has followed

    @property
    def most_rows(self) -> int:
        """Tokens that an answer may have in a step, so that there is memory for the logits of all texts."""
        if not self._is_batched:
            return 1
        rows = min(2 * self._most.num_answers, self._most.num_rows, MAX_TENTATIVE_ROWS)
        return max(1, rows // max(1, len(self._answering)))

    @property
    def limits(self) -> Limits:
        """How much runs together now."""
        if not self._is_batched:
            return Limits(self._most.num_rows, 1)
        if self._answers_at_once is not None:
            return Limits(self._most.num_rows, self.most_answers)
        company = self._company
        num_answers = batch.answers_together(
            self._most.num_answers,
            self._experts.cache.holds_all,
            self._waiting_share,
            company is not None and company.is_together,
        )
        return Limits(self._most.num_rows, num_answers)

    @property
    def most_answers(self) -> int:
        """How many may ever run together, if it pays."""
        if not self._is_batched:
            return 1
        return min(self._answers_at_once or self._most.num_answers, self._most.num_answers)

    @property
    def _company(self) -> Company | None:
        """What is known of as many answers as are being written now; None for one or none."""
        if len(self._answering) < 2:
            return None
        since = self._num_steps - 2 * len(self._answering)
        num_texts = sum(last.step > since for last in list(self._answering.values()))
        return self._companies[(num_texts - 1).bit_length()] if num_texts > 1 else None

    def gathering_s(self, waiting: Sequence[Job]) -> float:
        """See Maker."""
        first = waiting[0].wish
        if first.is_alone or not self._is_batched:
            return 0.0
        if not first.is_answer and (patience_s := self._chunk_patience_s(waiting)) > 0:
            return patience_s
        here = {id(job.holding) for job in waiting if isinstance(job, Part)}
        if self._answering.keys() <= here:
            return 0.0
        if first.is_answer and self.limits.num_answers == 1:
            return 0.0
        patience_s, now = batch.gathering_s(self._token_s), time.monotonic()
        missing = [(last.at_s, text) for text, last in list(self._answering.items()) if text not in here]
        for at_s, text in missing:
            if now - at_s >= patience_s:
                self._answering.pop(text, None)
        latest_s, _ = max(missing, default=(-patience_s, 0))
        return max(0.0, latest_s + patience_s - now)

    def _chunk_patience_s(self, waiting: Sequence[Job]) -> float:
        """How much longer the first, a chunk, waits for another text's."""
        wishes, waited_s = [job.wish for job in waiting], time.monotonic() - waiting[0].asked_s
        return batch.chunk_patience_s(wishes, self.limits, self._lone_chunk) - waited_s

    def choose(self, waiting: Sequence[Job]) -> list[Job]:
        """See Maker."""
        if not self._is_batched or len(waiting) == 1:
            return [waiting[0]]
        chosen = batch.choose([job.wish for job in waiting], self.limits, self._num_owed)
        return [waiting[i] for i in chosen]

    def make(self, jobs: Sequence[Job]) -> None:
        """See Maker.

        Raises:
            TakenBack: a step that failed has taken a text of these back.
        """
        parts = [job for job in jobs if isinstance(job, Part)]
        self._check(parts)
        experts, began_s = self._experts, time.monotonic()
        before, observer = experts.counts, experts.observer
        if parts[0].observer is not None:
            experts.observer = parts[0].observer
        try:
            self._run(parts)
        except BaseException:
            for part in parts:
                self._pool.rewind(part.holding, len(part.holding.token_ids))
            raise
        finally:
            experts.observer = observer
            counts = experts.counts - before
            for part in parts:
                part.counts = counts
        self._measure(parts, began_s, counts.waited_s)

    def ended(self, holding: Holding) -> None:
        """Expect no more of this text."""
        self._answering.pop(id(holding), None)

    def _check(self, parts: Sequence[Part]) -> None:
        """Refuse tokens that do not follow those of their text.

        A state that cannot go back by itself goes back to where it was kept last, for whosever error the
        step failed.
        """
        for part in parts:
            holding = part.holding
            if holding.state.length != len(holding.token_ids):  # a second Ctrl-C came while it was taken back
                self._pool.rewind(holding, len(holding.token_ids))
            if len(holding.token_ids) != part.start:
                raise TakenBack

    def _run(self, parts: Sequence[Part]) -> None:
        segments: list[Segment] = []
        tokens: list[int] = []
        wanted: list[int] = []  # rows whose logits are
        for part in parts:
            segments.append(Segment(len(tokens), len(part.token_ids), part.holding.state, part.is_tentative))
            tokens += part.token_ids
            wanted += range(len(tokens) - part.num_logits, len(tokens))
        hidden = self._decoder.step(np.array(tokens, np.int32), segments)
        logits = NOTHING
        if wanted:
            logits = self._decoder.head(hidden if len(wanted) == len(tokens) else hidden[wanted])
        first = 0
        for part, segment in zip(parts, segments, strict=True):
            part.hidden = hidden[segment.rows]
            part.logits = logits[first : first + part.num_logits]
            if part.num_logits < len(wanted):
                part.logits = part.logits.copy()  # which keeps no others alive
            first += part.num_logits
            if not part.wish.is_answer:
                part.holding.state.keep()  # the next turn of a chat goes on from here
            # Nothing is called between these two, so Python does not look for Ctrl-C, after which the others
            # of the step would have their tokens twice.
            part.holding.token_ids += part.token_ids
            part.is_done = True

    def _measure(self, parts: Sequence[Part], began_s: float, waited_s: float) -> None:
        now_s = time.monotonic()
        took_s = now_s - began_s
        has_prompts = False
        for part in parts:
            part.took_s, part.has_company = took_s, len(parts) > 1
            if part.wish.is_answer:
                self._answering[id(part.holding)] = LastToken(now_s, self._num_steps + 1)
            else:
                has_prompts = True
        if has_prompts:
            if len(parts) == 1 and parts[0].wish.num_rows >= batch.LONG_CHUNK:
                self._lone_chunk = batch.LoneChunk(took_s, waited_s)
            self._num_owed = batch.steps_owed(took_s, self._token_s)
            self._ended_s = 0.0
            return
        self._num_owed = max(0, self._num_owed - 1)
        self._num_steps += 1
        newest = NEWEST if self._token_s else 1.0
        self._token_s += newest * (took_s - self._token_s)
        self._waiting_share += NEWEST * (waited_s / took_s - self._waiting_share)
        company, since_s = self._company, now_s - self._ended_s
        if company is not None and since_s <= 2 * took_s + batch.MOST_GATHERING_S:
            company.note(len(parts), since_s)  # and what it took to come together
        self._ended_s = now_s
