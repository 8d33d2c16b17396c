"""How often drafted tokens hold, by their kind: learnt from every token, whether it was tried or not."""

from __future__ import annotations

from collections.abc import Mapping

# Observations that what is known of other texts counts as.
PRIOR_WEIGHT = 4.0
# Observations after which the oldest of a text count little: it may quote for a while, and then not.
MEMORY = 24.0
# The same of all texts together where a model guesses: how often it is right depends less on the text, and
# what is known from a few answers would change by luck.
MODEL_MEMORY = 240.0


class Chances:
    """The chance that a token of each kind is right, from what was expected and what was seen."""

    def __init__(
        self, expected: Mapping[int, float], prior: Chances | None = None, memory: float = MEMORY
    ) -> None:
        """``prior``: what other texts have seen; it learns from this one. ``memory``: see MEMORY."""
        self._expected = expected
        self._prior = prior
        self._kept = 1 - 1 / memory
        self._num_right: dict[int, float] = {}
        self._num_seen: dict[int, float] = {}

    def __getitem__(self, kind: int) -> float:
        before = self._expected[kind] if self._prior is None else self._prior[kind]
        num_right = self._num_right.get(kind, 0.0) + PRIOR_WEIGHT * before
        return num_right / (self._num_seen.get(kind, 0.0) + PRIOR_WEIGHT)

    def learn(self, kind: int, is_right: bool) -> None:
        """A token of this kind was right or wrong."""
        self._num_right[kind] = self._kept * self._num_right.get(kind, 0.0) + is_right
        self._num_seen[kind] = self._kept * self._num_seen.get(kind, 0.0) + 1
        if self._prior is not None:
            self._prior.learn(kind, is_right)
