"""Reading ahead as Python sees it; native/tests/speculation_test.cpp has when it is done."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.experts import (
    Catalog,
    GatePredictor,
    NoPredictor,
    Residency,
    UseStatistics,
    make_policy,
    speculate,
)
from edgemoe.native import LayerPace

CATALOG = Catalog({(layer, expert): 4096 for layer in range(3) for expert in range(4)})
X, IDS = np.zeros((1, 32), np.float32), np.zeros((1, 2), np.int32)
WEIGHTS = X[:, :2].copy()


class Line:
    """Reads under way that never end; see Reads."""

    pending_bytes = demanded_bytes = 0
    waited_s = 0.0

    def __init__(self):
        self.started = []

    def __contains__(self, expert):
        return expert in self.started

    def start(self, expert, priority):
        self.started.append(expert)
        return True

    def cancel(self, expert):
        return False


class Foretells:
    """Sure of the next layer's first two experts."""

    def __init__(self, num_experts=4):
        self.scores = np.arange(num_experts, 0, -1, dtype=np.float64)[None]
        self.asked = []

    def forecast(self, position, x, expert_ids, weights, lookahead):
        self.asked.append((position, x.shape, expert_ids.tolist(), weights.tolist(), lookahead))
        return [(position + 1, self.scores)]


def speculation_with(predictor, line, **pace):
    residency = Residency(UseStatistics(CATALOG), make_policy("lru"), 4 * 4096)
    return speculate(CATALOG, residency, line, predictor, 2, LayerPace(1e9, 0.0, 0.0, **pace))


def test_predictor_reads_and_clock_may_be_written_in_python():
    predictor, line = Foretells(), Line()
    speculation = speculation_with(predictor, line, clock=iter(np.arange(100) * 1e-3).__next__)
    assert speculation.settle(0, 1, [0, 1]) == []
    speculation.start(0, X, IDS, WEIGHTS)
    assert predictor.asked == [(0, (1, 32), [[0, 0]], [[0.0, 0.0]], 1)]
    assert line.started == [4, 5, 6, 7]
    assert speculation.settle(1, 1, [4, 7]) == [4, 7]
    assert (speculation.num_reads, speculation.wasted_bytes) == (4, 2 * 4096)


def test_without_a_predictor_nothing_is_asked_or_timed():
    assert speculation_with(NoPredictor(), Line()) is None
    assert speculation_with(GatePredictor({}, [4, 4, 4]), Line()).is_on


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a forecast fits no layer"):
        speculation_with(Foretells(num_experts=3), Line()).start(0, X, IDS, WEIGHTS)
    speculation = speculation_with(Foretells(), Line())
    with pytest.raises(ValueError, match="no layer at position 3"):
        speculation.settle(3, 1, [])
    with pytest.raises(ValueError, match="an expert is outside its layer"):
        speculation.start(0, X, IDS + 4, WEIGHTS)


def test_what_a_predictor_raises_is_seen():
    class Fails:
        def forecast(self, *_):
            raise RuntimeError("no idea")

    with pytest.raises(RuntimeError, match="no idea"):
        speculation_with(Fails(), Line()).start(0, X, IDS, WEIGHTS)
