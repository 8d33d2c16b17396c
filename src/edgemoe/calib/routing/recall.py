"""How many of the experts that a layer chose had been forecast one layer before.

Letters: T tokens, S layers with experts, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.calib.trace import Trace
from edgemoe.experts import Forecast, Predictor
from edgemoe.native import FloatArray

WIDER = 1.5  # forecasting this many times K experts


@dataclass(frozen=True)
class Recall:
    """Shares of the chosen experts that were among the forecast ones, per position (S,).

    ``exact`` forecasts K experts, ``wider`` 1.5 K. NaN where nothing was forecast. Forecasting E' experts
    for K chosen wastes E' - recall * K reads.
    """

    exact: NDArray[np.float64]
    wider: NDArray[np.float64]

    def mean(self, first: int = 1) -> tuple[float, float]:
        """Means over the layers from ``first`` on; the very first follows no layer of its token."""
        return float(np.nanmean(self.exact[first:])), float(np.nanmean(self.wider[first:]))


def measure_recall(predictor: Predictor, trace: Trace, first: int = 0, last: int | None = None) -> Recall:
    """Replay tokens ``first`` to ``last`` of a trace one by one, as decoding does."""
    num_layers, k = trace.experts.shape[1:]
    wider_k = int(np.ceil(WIDER * k))
    found = np.zeros((2, num_layers))
    seen = np.zeros(num_layers)
    due: dict[int, FloatArray] = {}
    starts = set(trace.starts)
    for token, position, forecasts in replay(predictor, trace, first, last):
        if token in starts and position == 0:
            due.clear()
        scores = due.pop(position, None)
        if scores is not None:
            order = np.argsort(-scores)
            chosen = trace.experts[token, position]
            found[0, position] += np.isin(chosen, order[:k]).mean()
            found[1, position] += np.isin(chosen, order[:wider_k]).mean()
            seen[position] += 1
        due.update({target: scores[-1] for target, scores in forecasts})
    with np.errstate(invalid="ignore"):
        exact, wider = found / seen
    return Recall(exact, wider)


def replay(
    predictor: Predictor, trace: Trace, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, int, list[Forecast]]]:
    """Yields (token, position, what the predictor says there) for the tokens whose states are kept."""
    end = min(len(trace.states), trace.num_tokens if last is None else last)
    for token in range(first, end):
        states = trace.states[token].astype(np.float32)
        experts = trace.experts[token].astype(np.int32)
        weights = trace.weights[token].astype(np.float32)
        for position in range(len(states)):
            row = slice(position, position + 1)
            yield token, position, predictor.forecast(position, states[row], experts[row], weights[row], 1)
