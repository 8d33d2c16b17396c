"""The bootstrap (Efron 1979): how far a mean could be off, by drawing anew from what was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
NUM_DRAWS = 2000


def draw_indices(count: int) -> NDArray[np.int64]:
    """Which of ``count`` measurements each draw has, (NUM_DRAWS, count); always the same."""
    return np.random.default_rng(0).integers(0, count, (NUM_DRAWS, count))


def interval_of(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The two-sided interval that holds CONFIDENCE of what was drawn (NUM_DRAWS,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
