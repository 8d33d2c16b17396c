"""Whether reading ahead pays at all, by the clock: now and then tokens are timed with and without it."""

from __future__ import annotations

from statistics import mean, median, variance

# Tokens over which the governor times both ways, and those between two such trials. It changes between them
# after every few tokens, so that whatever else slows the machine down meets both alike.
TRIAL_TOKENS, KEEP_TOKENS, TURN_TOKENS = 48, 480, 3
# A turn counts at most this many times the median of both ways: more is mostly some other program's doing.
MOST_OF_MEDIAN = 1.5


class Governor:
    """Times single tokens with and without speculation, and keeps the faster way until the next trial.

    How many experts are missing differs much from token to token: only a difference that is larger than its
    standard error changes what was kept before. One turn that is held up must not hide it.
    """

    def __init__(self, num_layers: int) -> None:
        self._turn_layers = TURN_TOKENS * num_layers
        self._trial_layers, self._keep_layers = TRIAL_TOKENS * num_layers, KEEP_TOKENS * num_layers
        self._turns_s: dict[bool, list[float]] = {True: [], False: []}  # by is_on
        self._turn_s = 0.0
        # Layers since the trial, or what was kept after it, began. At first there is little in the cache, and
        # nothing to be learnt: the first trial comes when as many tokens have passed as it has itself.
        self._count = self._keep_layers - self._trial_layers
        self._is_trial = False
        self._kept = True
        self.is_on = True

    @property
    def is_resting(self) -> bool:
        """Off, and nothing is timed: only the layers are counted until the next trial."""
        return not self._is_trial and not self.is_on

    def layer_took(self, elapsed_s: float) -> None:
        """One layer of one token, waiting included."""
        self._count += 1
        if self._is_trial:
            self._turn_s += elapsed_s
            if self._count % self._turn_layers == 0:
                self._turns_s[self.is_on].append(self._turn_s)
                self._turn_s = 0.0
                self.is_on = not self.is_on
        if self._count == (self._trial_layers if self._is_trial else self._keep_layers):
            if self._is_trial:
                self.is_on = self._kept = self._choose()
            self._turns_s = {True: [], False: []}
            self._is_trial = not self._is_trial
            self._count = 0

    def _choose(self) -> bool:
        most_s = MOST_OF_MEDIAN * median(self._turns_s[True] + self._turns_s[False])
        on_s, off_s = ([min(turn_s, most_s) for turn_s in self._turns_s[is_on]] for is_on in (True, False))
        slower_s = mean(on_s) - mean(off_s)
        error_s = (variance(on_s) / len(on_s) + variance(off_s) / len(off_s)) ** 0.5
        return slower_s < 0 if abs(slower_s) > error_s else self._kept
