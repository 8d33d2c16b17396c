"""Reading ahead: which forecast experts are worth starting to read now.

A read on speculation pays when the time it hides, weighed by its probability, is more than the time it
costs when it was wrong. On storage so slow that a read takes many times the time until the router
speaks, almost nothing pays; and where almost everything is resident, forecasting itself costs more than
it saves. The engine notices both and stops speculating.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgemoe.experts.cache import ExpertCache
from edgemoe.experts.loads import Loads
from edgemoe.experts.predictors import Predictor
from edgemoe.native import FloatArray, IntArray

# Weight of the newest observation in running means.
NEWEST = 0.05
# Before anything was observed: how often an expert ranked among the first K, or the next K, is chosen.
FIRST_CONFIDENCE, NEXT_CONFIDENCE = 0.8, 0.15
# A wrong read also pushes something out; the share of a read that this costs on average.
EVICTION_COST = 0.1
# What is believed of storage and of the time between two layers before they are measured.
UNKNOWN_BANDWIDTH = 500e6
UNKNOWN_INTERVAL_S = 1e-3
# One layer ahead is early enough when its time is this many reads', and how far to look otherwise.
AMPLE = 0.7
MAX_LOOKAHEAD = 2
# The governor: layers over which speculation is judged, and layers that it rests when it did not pay.
TRIAL_LAYERS, REST_LAYERS = 192, 4096


@dataclass(slots=True)
class SpeculationCounts:
    """What reading ahead did so far. ``wasted_bytes`` were read for a layer that chose otherwise."""

    num_reads: int = 0
    num_useful: int = 0
    num_late: int = 0  # useful ones that had not arrived when they were needed
    wasted_bytes: int = 0


class Pace:
    """How long a layer computes for each token (a running mean), and how fast storage delivers."""

    def __init__(self, bytes_per_s: float = UNKNOWN_BANDWIDTH, latency_s: float = 0.0) -> None:
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self._layer_s = {True: UNKNOWN_INTERVAL_S, False: UNKNOWN_INTERVAL_S}  # per token, by is_step
        self._began_s = 0.0
        self._waited_s = 0.0
        self._num_tokens = 0

    def layer_begins(self, num_tokens: int, waited_s: float) -> None:
        """A router has spoken; ``waited_s`` is all the time spent waiting for reads until now."""
        now_s = time.perf_counter()
        if self._num_tokens == num_tokens:
            computed_s = (now_s - self._began_s - (waited_s - self._waited_s)) / num_tokens
            mean_s = self._layer_s[num_tokens == 1]
            # One long gap, such as a user who thinks, must not spoil the mean.
            self._layer_s[num_tokens == 1] += NEWEST * (min(computed_s, 4 * mean_s) - mean_s)
        self._began_s, self._waited_s, self._num_tokens = now_s, waited_s, num_tokens

    def read_s(self, num_bytes: int) -> float:
        """Seconds that one read alone takes."""
        return self.latency_s + num_bytes / self.bytes_per_s

    def layer_s(self, num_tokens: int) -> float:
        """Seconds from one router to the next without waiting."""
        return self._layer_s[num_tokens == 1] * num_tokens


class Governor:
    """Stops speculation for a while when the time it saved is less than the time it took."""

    def __init__(self) -> None:
        self._saved_s = 0.0
        self._spent_s = 0.0
        self._num_layers = 0
        self._num_resting = 0
        self.num_reads = 0
        self.issue_s = 0.0  # what starting one read takes, a running mean
        self.is_resting = False

    def layer_done(self, saved_s: float, spent_s: float) -> None:
        """One layer's account: waiting that reads ahead saved, and time that forecasting took."""
        self._saved_s += saved_s
        self._spent_s += spent_s
        self._num_layers += 1
        if self.is_resting:
            self._num_resting -= 1
            self.is_resting = self._num_resting > 0
        elif self._num_layers >= TRIAL_LAYERS:
            self.is_resting = self._saved_s < self._spent_s
            self._num_resting = REST_LAYERS
        else:
            return
        if not self.is_resting or self._num_resting == REST_LAYERS:
            self._saved_s = self._spent_s = 0.0
            self._num_layers = 0

    def reads_started(self, num_reads: int, spent_s: float) -> None:
        """``num_reads`` were started in ``spent_s``."""
        if num_reads:
            mean_s = spent_s / num_reads
            self.issue_s += (NEWEST if self.num_reads else 1.0) * (mean_s - self.issue_s)
            self.num_reads += num_reads


class Speculation:
    """Starts reads of forecast experts and learns how far forecasts can be trusted."""

    def __init__(
        self, cache: ExpertCache, loads: Loads, predictor: Predictor, top_k: int, pace: Pace
    ) -> None:
        self._cache = cache
        self._loads = loads
        self._predictor = predictor
        self._top_k = top_k
        self._pace = pace
        self._governor = Governor()
        catalog = cache.catalog
        self._sizes: list[int] = catalog.num_bytes.tolist()
        self._typical_read_s = pace.read_s(max(self._sizes))
        ranks = [FIRST_CONFIDENCE] * top_k + [NEXT_CONFIDENCE] * top_k
        # How often the expert ranked r was chosen, per layer: no calibration that another text could belie.
        self._confidence = [list(ranks) for _ in range(catalog.num_layers)]
        self._ranked: dict[int, list[int]] = {}  # by position, for single tokens
        self._started: list[set[int]] = [set() for _ in range(catalog.num_layers)]
        self._saved_s = 0.0  # since the last layer
        self.counts = SpeculationCounts()

    @property
    def is_resting(self) -> bool:
        """True while the governor has stopped speculation because it did not pay."""
        return self._governor.is_resting

    def settle(self, position: int, chosen: list[int]) -> set[int]:
        """The router has spoken: drop what it did not ask for. Returns what was read ahead rightly."""
        ranked = self._ranked.pop(position, None)
        if ranked is not None:
            self._cache.residency.is_reserved[ranked[: self._top_k]] = False
            confidence = self._confidence[position]
            for rank, expert in enumerate(ranked):
                confidence[rank] += NEWEST * ((expert in chosen) - confidence[rank])
        started = self._started[position]
        if not started:
            return started
        self._started[position] = set()
        useful = started.intersection(chosen)
        for expert in started - useful:
            if expert not in self._loads or not self._loads.cancel(expert):
                self.counts.wasted_bytes += self._sizes[expert]
        self.counts.num_useful += len(useful)
        for expert in useful:
            if expert in self._loads:
                self.counts.num_late += 1
            else:
                self._saved_s += self._pace.read_s(self._sizes[expert])
        return useful

    def start(self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> None:
        """Forecast the next layers and start the reads that pay."""
        governor = self._governor
        saved_s, self._saved_s = self._saved_s, 0.0
        if governor.is_resting or self._cache.is_complete:
            governor.layer_done(saved_s, 0.0)
            return
        began_s = time.perf_counter()
        layer_s = self._pace.layer_s(len(x))
        # Farther layers are forecast worse: look only as far as a read takes.
        lookahead = 1 if self._typical_read_s < AMPLE * layer_s else MAX_LOOKAHEAD
        forecasts = self._predictor.forecast(position, x, expert_ids, weights, lookahead)
        queued_s = self._loads.pending_bytes / self._pace.bytes_per_s
        num_reads = self.counts.num_reads
        ranked = [self._rank(target, scores) for target, scores in forecasts]
        ranked_s = time.perf_counter()
        for distance, (experts, probabilities) in enumerate(ranked, 1):
            until_s = distance * layer_s
            queued_s = self._start_paying(experts, probabilities, distance, until_s, queued_s)
        ended_s = time.perf_counter()
        governor.reads_started(self.counts.num_reads - num_reads, ended_s - ranked_s)
        governor.layer_done(saved_s, ranked_s - began_s)

    def _start_paying(
        self, experts: list[int], probabilities: list[float], distance: int, until_s: float, queued_s: float
    ) -> float:
        """Start the reads of one layer's forecast that pay; returns the seconds of reads then queued."""
        for expert, probability in zip(experts, probabilities, strict=False):
            if expert in self._cache or expert in self._loads:
                continue
            read_s = self._pace.read_s(self._sizes[expert])
            if not pays(probability, read_s, until_s - queued_s, self._governor.issue_s):
                break  # those after it are less likely still
            if not self._loads.start(expert, priority=distance):
                break
            queued_s += self._sizes[expert] / self._pace.bytes_per_s
            self._started[self._cache.catalog.position_of(expert)].add(expert)
            self.counts.num_reads += 1
        return queued_s

    def _rank(self, position: int, scores: FloatArray) -> tuple[list[int], list[float]]:
        """Experts by number, likeliest first, each with its probability."""
        first, k = self._cache.catalog.span(position).start, self._top_k
        if len(scores) == 1:
            ranked: list[int] = (first + np.argsort(-scores[0], kind="stable")[: 2 * k]).tolist()
            if position not in self._ranked:
                self._ranked[position] = ranked
                self._cache.residency.is_reserved[ranked[:k]] = True
            return ranked, self._confidence[position]
        # A chunk of tokens needs the union: an expert is wanted unless every forecast of it was wrong.
        likeliest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        votes = np.bincount(likeliest.ravel(), minlength=scores.shape[1])
        order = np.argsort(-votes, kind="stable")[: np.count_nonzero(votes)]
        trust = sum(self._confidence[position][:k]) / k
        probabilities: list[float] = (1 - (1 - trust) ** votes[order]).tolist()
        return (first + order).tolist(), probabilities


def pays(probability: float, read_s: float, until_needed_s: float, issue_s: float = 0.0) -> bool:
    """Whether starting a read of ``read_s`` is expected to save time.

    If right it hides the part that fits into the time until it is needed; if wrong, the rest of it holds
    up the reads that are needed then, and starting it (``issue_s``) was in vain.
    """
    hidden_s = min(max(until_needed_s, 0.0), read_s)
    in_vain_s = (read_s - hidden_s) + EVICTION_COST * read_s + issue_s
    return probability * hidden_s > (1 - probability) * in_vain_s
