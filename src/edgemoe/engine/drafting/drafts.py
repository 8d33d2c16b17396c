"""Drafts of one answer: guessed, tried as far as that pays, and judged by the tokens that come.

A drafted token is accepted where it is the one that is drawn at its place, from logits that have the bits
they would have without any draft. So drafts change how long an answer takes, and nothing else. V: vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from edgemoe.engine.drafting.drafter import NO_DRAFT, Draft, Drafter, Observe
from edgemoe.engine.drafting.governor import Account, StepTimes, Trials, best_length
from edgemoe.engine.drafting.kinds import Chances
from edgemoe.engine.sequence import Text
from edgemoe.models.layer_state import MAX_TENTATIVE_ROWS
from edgemoe.native import FloatArray

# Tokens that are not guessed after a guess that was not worth trying: looking takes as long as a tenth of a
# small model's step. And after one of a model's that was not worth making: no word of the text changes that.
RESTING = 3
MODEL_RESTING = 15


class DraftCounts:
    """Tokens that were drafted and computed, and how many of them were accepted."""

    def __init__(self) -> None:
        self.num_drafted = 0
        self.num_accepted = 0


@dataclass(frozen=True)
class Experience:
    """What all answers of a model have learnt of drafts, and what came of these."""

    times: StepTimes
    chances: Chances
    totals: DraftCounts
    trials: Trials = field(default_factory=Trials)


class Drafts:
    """Makes the steps of one answer. Used by one thread at a time."""

    def __init__(self, drafter: Drafter, shared: Experience, num_drafted: int | None = None) -> None:
        """``shared`` is the model's. ``num_drafted``: as many each time, whatever it costs."""
        self._drafter = drafter
        self._times = shared.times
        self._trials = shared.trials
        self._chances = Chances(drafter.expected, shared.chances)
        self._totals = shared.totals
        self._fixed = num_drafted
        self.counts = DraftCounts()
        self.observe: Observe | None = getattr(drafter, "observe", None)
        self._account = Account()
        self._guessed: deque[tuple[int, int]] = deque()  # tokens expected to come, and their kinds
        self._is_tried = False  # whether these were computed
        self._num_came, self._cost = 0, 0.0  # tokens of the latest step, and its cost
        self._num_resting = 0  # tokens that are not guessed

    def step(self, text: Text, token_id: int) -> FloatArray:
        """Append a token to the text; logits (V,) of what comes after it. Raises as ``Text.step``."""
        if self._guessed:
            self.judge(token_id)
        if self._num_resting:
            self._num_resting -= 1
            return text.step(token_id)
        if text.has_ahead(token_id):
            self._num_came += 1
            return text.step(token_id)
        if self._cost:
            self._account.book(self._num_came, self._cost)
            self._trials.earn(self._num_came)
        may_rest = self._fixed is None and self._times.is_known  # else single tokens are being timed
        draft, drafting_s = self._guess(text, token_id)
        if not draft.token_ids and not drafting_s:
            return self._step_alone(text, token_id, may_rest=may_rest)
        count = self._count(draft)
        logits = text.step(token_id, draft.token_ids[:count])
        self._num_came, self._cost = 1, self._learn_cost(text, count, drafting_s)
        tried = max(count, 1)  # one that was not tried is compared with what comes as well
        self._guessed.extend(zip(draft.token_ids[:tried], draft.kinds, strict=False))
        self._is_tried = count > 0
        if not count and self._is_free and may_rest:
            self._rest(RESTING)
        self._note(num_drafted=count)
        return logits

    def _step_alone(self, text: Text, token_id: int, *, may_rest: bool) -> FloatArray:
        """A step where nothing was guessed: as little as possible beside it."""
        logits = text.step(token_id)
        self._num_came, self._cost = 1, 1.0
        step = text.last_step
        if step is not None and not step.has_company:
            self._times.single(step.took_s, step.counts.waited_s)
        if may_rest:
            self._rest(RESTING if self._is_free else MODEL_RESTING)
        return logits

    def _rest(self, num_tokens: int) -> None:
        """Guess none of the next tokens."""
        self._num_resting = num_tokens
        self._account.book(num_tokens, num_tokens)
        self._trials.earn(num_tokens)

    def close(self) -> None:
        """The answer has ended."""
        self._drafter.close()

    @property
    def _is_free(self) -> bool:
        """Whether guessing takes nothing that counts."""
        return self._drafter.unguessed is None

    def _guess(self, text: Text, token_id: int) -> tuple[Draft, float]:
        """What may follow a token, and the seconds that guessing it is to be charged with."""
        if self._fixed is None and self._is_free:
            draft = self._drafter.draft(text.token_ids, token_id, MAX_TENTATIVE_ROWS - 1)
            return draft.cut(self._most(text)) if draft.token_ids else draft, 0.0
        most, is_trial = self._most(text), False
        if self._fixed is None and not most:
            most = int(self._can_try(text))
            is_trial = most > 0
        if not most:
            return NO_DRAFT, 0.0
        began_s = time.monotonic()
        draft = self._drafter.draft(text.token_ids, token_id, most)
        took_s = time.monotonic() - began_s
        if is_trial:
            self._trials.pay(took_s / self._times.single_s)
            return draft, 0.0
        return draft, took_s - draft.reading_s

    def _most(self, text: Text) -> int:
        """Tokens that are worth guessing; where guessing is free, one even if none can be tried, to learn."""
        most = text.most_drafted
        if self._fixed is not None:
            return min(most, self._fixed)
        if self._is_free:
            return most if self._times.is_known else min(most, 1)
        return self._most_by_a_model(most) if self._times.is_known else 0

    def _most_by_a_model(self, most: int) -> int:
        """As ``_most``, where guessing itself takes time."""
        kind, of_token = self._drafter.unguessed, self._drafter.token_s / self._times.single_s
        assert kind is not None, "guessing is free"
        if not of_token:
            return 0
        costs = [cost + i * of_token for i, cost in enumerate(self._times.costs(most))]
        return best_length([self._chances[kind]] * most, costs, self._account.affordable)

    def _can_try(self, text: Text) -> bool:
        """Whether to guess one token where no draft is expected to pay, so that better times are noticed."""
        if not self._times.is_known or not text.most_drafted:
            return False
        took_s = self._drafter.token_s + self._drafter.behind_s(len(text.token_ids) + 1)
        return self._trials.can_pay(took_s / self._times.single_s)

    def _count(self, draft: Draft) -> int:
        """How many of them to try."""
        if self._fixed is not None:
            return len(draft.token_ids)
        if not self._times.is_known or not draft.token_ids:
            return 0
        costs = self._times.costs(len(draft.token_ids))
        return best_length([self._chances[kind] for kind in draft.kinds], costs, self._account.affordable)

    def _learn_cost(self, text: Text, num_drafted: int, drafting_s: float) -> float:
        """Learn from the latest step's time; what steps like it cost on average, in steps of one token."""
        times, step = self._times, text.last_step
        if step is None:  # the text had to be read again
            return 0.0
        drafting = drafting_s / (times.single_s or step.took_s)
        if not step.has_company:
            if num_drafted:
                times.several(1 + num_drafted, step.took_s)
            else:
                times.single(step.took_s, step.counts.waited_s)
        return times.costs(num_drafted)[num_drafted] + drafting

    def judge(self, token_id: int) -> None:
        """Compare a token that has come with the one that was guessed; ``step`` does so itself."""
        if not self._guessed:
            return
        guessed, kind = self._guessed.popleft()
        is_right = guessed == token_id
        self._chances.learn(kind, is_right)
        if self._drafter.unguessed is not None:
            self._chances.learn(self._drafter.unguessed, is_right)
        if not is_right:
            self._guessed.clear()
        elif self._is_tried:
            self._note(num_accepted=1)

    def _note(self, num_drafted: int = 0, num_accepted: int = 0) -> None:
        for counts in (self.counts, self._totals):
            counts.num_drafted += num_drafted
            counts.num_accepted += num_accepted
