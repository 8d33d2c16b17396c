"""Reading ahead: which forecast experts are worth starting to read now.

A read on speculation pays when the time it hides, weighed by its probability, is more than the time it
costs when it was wrong. On storage so slow that a read takes many times the time until the router
speaks, almost nothing pays, and the engine stops speculating by itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
# What storage is believed to carry before it was measured, in bytes per second.
UNKNOWN_BANDWIDTH = 500e6
UNKNOWN_INTERVAL_S = 1e-3


@dataclass(slots=True)
class SpeculationCounts:
    """What reading ahead did so far. ``wasted_bytes`` were read for a layer that chose otherwise."""

    num_reads: int = 0
    num_useful: int = 0
    num_late: int = 0  # useful ones that had not arrived when they were needed
    wasted_bytes: int = 0


class Pace:
    """How long a layer computes for each token, and how fast storage delivers: running means."""

    def __init__(self, bytes_per_s: float = UNKNOWN_BANDWIDTH) -> None:
        self.bytes_per_s = bytes_per_s
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

    def layer_s(self, num_tokens: int) -> float:
        """Seconds from one router to the next without waiting."""
        return self._layer_s[num_tokens == 1] * num_tokens


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
        num_layers = cache.catalog.num_layers
        ranks = np.where(np.arange(2 * top_k) < top_k, FIRST_CONFIDENCE, NEXT_CONFIDENCE)
        # How often the expert ranked r was chosen, per layer: no calibration that another text could belie.
        self._confidence = np.tile(ranks, (num_layers, 1))
        self._ranked: dict[int, NDArray[np.int64]] = {}  # by position, for single tokens
        self._started: list[set[int]] = [set() for _ in range(num_layers)]
        self.counts = SpeculationCounts()

    def settle(self, position: int, chosen: list[int]) -> set[int]:
        """The router has spoken: drop what it did not ask for. Returns what was read ahead rightly."""
        catalog = self._cache.catalog
        self._cache.residency.is_reserved[catalog.span(position)] = False
        ranked = self._ranked.pop(position, None)
        if ranked is not None:
            confidence = self._confidence[position, : len(ranked)]
            confidence += NEWEST * (np.isin(ranked, chosen) - confidence)
        started, self._started[position] = self._started[position], set()
        useful = started.intersection(chosen)
        for expert in started - useful:
            if expert not in self._loads or not self._loads.cancel(expert):
                self.counts.wasted_bytes += int(catalog.num_bytes[expert])
        self.counts.num_useful += len(useful)
        self.counts.num_late += sum(expert in self._loads for expert in useful)
        return useful

    def start(self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> None:
        """Forecast the next layers and start the reads that pay."""
        forecasts = self._predictor.forecast(position, x, expert_ids, weights)
        layer_s = self._pace.layer_s(len(x))
        queued_s = self._loads.pending_bytes / self._pace.bytes_per_s
        for distance, (target, scores) in enumerate(forecasts, 1):
            ranked, probabilities = self._rank(target, scores)
            if distance == 1:
                self._cache.residency.is_reserved[ranked[: self._top_k]] = True
            for expert, probability in zip(ranked.tolist(), probabilities.tolist(), strict=True):
                if expert in self._cache or expert in self._loads:
                    continue
                read_s = int(self._cache.catalog.num_bytes[expert]) / self._pace.bytes_per_s
                if not pays(probability, read_s, distance * layer_s - queued_s):
                    break  # those after it are less likely still
                if not self._loads.start(expert, priority=distance):
                    return
                queued_s += read_s
                self._started[target].add(expert)
                self.counts.num_reads += 1

    def _rank(self, position: int, scores: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """Experts by number, likeliest first, each with its probability."""
        first = self._cache.catalog.span(position).start
        if len(scores) == 1:
            ranked = first + np.argsort(-scores[0], kind="stable")[: 2 * self._top_k]
            self._ranked[position] = ranked
            return ranked, self._confidence[position, : len(ranked)]
        # A chunk of tokens needs the union: an expert is wanted unless every forecast of it was wrong.
        likeliest = np.argpartition(-scores, self._top_k - 1, axis=1)[:, : self._top_k]
        votes = np.bincount(likeliest.ravel(), minlength=scores.shape[1])
        order = np.argsort(-votes, kind="stable")[: np.count_nonzero(votes)]
        trust = float(self._confidence[position, : self._top_k].mean())
        return first + order, 1 - (1 - trust) ** votes[order]


def pays(probability: float, read_s: float, until_needed_s: float) -> bool:
    """Whether starting a read of ``read_s`` is expected to save time.

    If right it hides the part that fits into the time until it is needed; if wrong the rest of it holds
    up the reads that are needed then.
    """
    hidden_s = min(max(until_needed_s, 0.0), read_s)
    overrun_s = read_s - hidden_s
    return probability * hidden_s > (1 - probability) * overrun_s + EVICTION_COST * (1 - probability) * read_s
