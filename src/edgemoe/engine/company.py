"""Whether several answers are written in one step or in turn: as was measured to be faster.

Together they read an expert that several of them choose once, and the dense weights too. But each has experts
of its own, and where memory is short they may push out one another's. Which weighs more depends on the model,
the texts, the memory and the storage. So both ways are tried, and the slower one again from time to time, for
so few tokens that little is lost.
"""

from __future__ import annotations

# Tokens after which a way counts as tried, and before which one that is much slower does not.
TRIAL_TOKENS = 24
LEAST_TOKENS = 8
MUCH_SLOWER = 1.3
# A way must be faster by this factor to take the other's place.
MARGIN = 1.03
# Tokens between two trials; twice as many after each that has changed nothing.
FIRST_REST, LONGEST_REST = 128, 8192


class Company:
    """What was measured for about so many answers at once. Used by one thread at a time."""

    def __init__(self) -> None:
        self.is_together = False  # what is tried now
        self._best = False
        self._token_s: dict[bool, float] = {}  # by way: mean time of a token in the latest stretch
        self._num_tokens = (
            -1.0
        )  # of this stretch; below 0 until its first step, which pays for the change, is over
        self._rest = FIRST_REST

    def note(self, num_tokens: int, took_s: float) -> None:
        """A step the way that is tried now gave so many tokens of answers."""
        if self._num_tokens < 0:
            self._num_tokens = 0
            return
        way, before = self.is_together, self._num_tokens
        self._num_tokens += num_tokens
        weight = max(num_tokens / self._num_tokens, min(1.0, num_tokens / TRIAL_TOKENS))
        mean = self._token_s.get(way, 0.0) if before else 0.0
        self._token_s[way] = mean + weight * (took_s / num_tokens - mean)
        if self._has_ended(way):
            self._begin_next()

    def _has_ended(self, way: bool) -> bool:
        if way == self._best and len(self._token_s) == 2:
            return self._num_tokens >= self._rest
        is_slow = self._slowness(way) > MUCH_SLOWER
        return self._num_tokens >= (LEAST_TOKENS if is_slow else TRIAL_TOKENS)

    def _slowness(self, way: bool) -> float:
        """Time of a token this way over that of the other, as far as it is known."""
        return self._token_s[way] / self._token_s.get(not way, self._token_s[way])

    def _begin_next(self) -> None:
        """After a trial go on as is best, else try the other way."""
        way = self.is_together
        if way == self._best:
            self.is_together = not way
        elif self._slowness(way) * MARGIN < 1:
            self._best, self._rest = way, FIRST_REST
        else:
            self.is_together = self._best
            self._rest = min(2 * self._rest, LONGEST_REST)
        self._num_tokens = -1
