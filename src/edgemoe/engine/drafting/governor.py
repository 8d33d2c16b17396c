"""How many tokens to draft: as many as measurement says pay, none where it loses.

What a step of several tokens costs beside one of a single token follows from the bytes it reads: the dense
weights once, and the union of the experts that its tokens choose. Where storage is waited for, that is the
larger part, and drafts seldom pay; where all is in memory, long ones do. What the rule expects is corrected
by what steps were measured to take. What a draft brings follows from how often drafts of its kind held.

Whatever is expected, a text never loses more than a small share of its time: what drafts cost on average and
what they brought is booked, and a draft is tried only if the text can afford that all of it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Of the time of a text's steps so far, what drafts may have cost it in all; and what they may cost at first,
# in steps of one token.
LOSS_SHARE = 0.01
FIRST_LOSS = 2.0
# What drafts brought is remembered up to so many steps, so that it is not all lost again afterwards.
MOST_CREDIT = 12.0
# Guesses that no draft is expected to come of are paid for by all answers of a model together: of their steps
# this share, so many steps at first, and never more than so many at a time.
TRIAL_SHARE = 0.005
FIRST_TRIALS = 8.0
MOST_TRIALS = 12.0
# A draft must be expected to be faster by this share.
MARGIN = 0.04
# Weight of the newest step in what steps take, and in what several tokens cost beside one.
NEWEST = 0.1
# Single tokens that are timed before anything is drafted, and drafts in a row after which one is timed anew.
FIRST_SINGLES = 4
MOST_DRAFTS_IN_A_ROW = 24
# What further tokens cost is learnt from the sums of many steps, since the time of a single one depends on
# which experts happen to be missing. What follows from bytes counts as much as measured steps that cost this
# in all, in steps of one token; each step leaves so much of what was known before it; and none counts for
# more than so many times what was expected, as it may have been disturbed.
PRIOR_COST = 6.0
KEPT = 0.95
MOST_MEASURED = 4.0
# Of what was learnt so, this much is forgotten with every single token: else one unlucky draft could be the
# last that was ever tried.
FADING = 0.02


@dataclass(frozen=True, slots=True)
class StepShape:
    """What of a step grows with its tokens: ``expert_bytes`` of one token, of ``num_experts`` in a layer of
    which it chooses ``top_k``; ``dense_bytes`` are read once.
    """

    dense_bytes: float
    expert_bytes: float
    num_experts: int
    top_k: int

    def union(self, num_rows: int) -> float:
        """Experts of a layer that so many tokens choose together, over those of one, if they choose alike
        no more than by chance.
        """
        missed = (1 - self.top_k / self.num_experts) ** num_rows
        return (1 - missed) * self.num_experts / self.top_k

    def cost(self, num_rows: int, waiting_share: float, correction: float = 1.0) -> float:
        """Time of a step of so many tokens over that of one; of which waiting for storage is a share.

        ``correction`` is what was measured to be added for further tokens over what follows from bytes.
        """
        union = self.union(num_rows)
        in_memory = (self.dense_bytes + self.expert_bytes * union) / (self.dense_bytes + self.expert_bytes)
        expected = (1 - waiting_share) * in_memory + waiting_share * union
        return 1 + correction * (expected - 1)


def best_length(chances: Sequence[float], costs: Sequence[float], affordable: float) -> int:
    """How many tokens of a draft to try; 0 if none pays.

    ``chances``: that each is right if those before it are. ``costs``: of a step with so many drafted tokens,
    from 0 on, over a step with none; ``affordable``: the most that a draft may lose, in such steps.
    """
    best, best_speed = 0, 1 + MARGIN
    expected, chance = 1.0, 1.0
    for count, one in enumerate(chances, 1):
        chance *= one
        expected += chance
        if costs[count] - 1 > affordable:
            break
        speed = expected / costs[count]
        if speed > best_speed:
            best, best_speed = count, speed
    return best


class StepTimes:
    """What steps of a model take: one token, and several beside it. Used by one thread at a time."""

    def __init__(self, shape: StepShape) -> None:
        self.shape = shape
        self.single_s = 0.0  # mean of steps of one token
        self._waiting_share = 0.0  # of that
        self._measured = self._expected = PRIOR_COST  # sums over steps, of further tokens alone
        self._num_singles = 0
        self._num_in_a_row = 0  # drafts since the last single token

    @property
    def is_known(self) -> bool:
        """Whether enough steps of one token were timed, and not too long ago."""
        return self._num_singles >= FIRST_SINGLES and self._num_in_a_row < MOST_DRAFTS_IN_A_ROW

    def single(self, took_s: float, waited_s: float) -> None:
        """A step of one token took so long, some of it waiting for storage."""
        self._num_singles += 1
        self._num_in_a_row = 0
        weight = max(NEWEST, 1 / self._num_singles)
        self.single_s += weight * (took_s - self.single_s)
        self._waiting_share += weight * (min(1.0, waited_s / took_s) - self._waiting_share)
        self._measured += FADING * (self._expected - self._measured)

    def several(self, num_rows: int, took_s: float) -> None:
        """A step of several tokens of one text took so long."""
        self._num_in_a_row += 1
        expected = self.shape.cost(num_rows, self._waiting_share) - 1
        if expected > 0 and self.single_s > 0:
            measured = min(max(took_s / self.single_s - 1, 0.0), MOST_MEASURED * expected)
            self._measured = KEPT * self._measured + measured
            self._expected = KEPT * self._expected + expected

    def costs(self, most_drafted: int) -> list[float]:
        """Of steps with 0 to ``most_drafted`` drafted tokens, over one with none."""
        rows = range(1, most_drafted + 2)
        correction = self._measured / self._expected
        return [self.shape.cost(n, self._waiting_share, correction) for n in rows]


class Account:
    """What drafts have cost one text and what they brought, in steps of one token."""

    def __init__(self) -> None:
        self._balance = 0.0
        self._num_steps = 0.0

    @property
    def affordable(self) -> float:
        """The most that the next draft may lose."""
        return self._balance + FIRST_LOSS + LOSS_SHARE * self._num_steps

    def book(self, num_tokens: int, cost: float) -> None:
        """A step brought so many tokens of the answer, at this cost."""
        self._num_steps += cost
        self._balance = min(self._balance + num_tokens - cost, MOST_CREDIT)


class Trials:
    """What guesses may cost that no draft is expected to come of, in steps of one token.

    Without such guesses it would never be noticed that they hold. All answers of a model share it: each of
    them would have to read its prompt for a guess, which is more than one answer may lose.
    """

    def __init__(self) -> None:
        self._affordable = FIRST_TRIALS

    def can_pay(self, cost: float) -> bool:
        """Whether such a guess may be made; what costs more than was ever saved takes all of that."""
        return self._affordable >= min(cost, MOST_TRIALS)

    def earn(self, num_tokens: int) -> None:
        """Answers have become longer by so many tokens."""
        self._affordable = min(self._affordable + TRIAL_SHARE * num_tokens, MOST_TRIALS)

    def pay(self, cost: float) -> None:
        """Such a guess cost so much."""
        self._affordable -= cost
