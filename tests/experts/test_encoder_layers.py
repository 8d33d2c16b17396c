"""What an encoder's layers change: they run once, so their experts are worth nothing once they have."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.experts import (
    POLICIES,
    Catalog,
    NoPredictor,
    Residency,
    StepPredictor,
    UseStatistics,
    make_policy,
)

# Four layers of two experts, numbers 0, 1 | 2, 3 | 4, 5 | 6, 7; the first two are an encoder's.
CATALOG = Catalog({(layer, expert): 4096 for layer in (1, 3, 5, 7) for expert in range(2)}, 4)


def running(*uses):
    """Statistics after layers, (position, expert number), have run for a token each."""
    statistics = UseStatistics(CATALOG)
    for position, expert in uses:
        first = CATALOG.span(position).start
        statistics.observe(position, np.array([[expert - first]], np.int32))
    return statistics


def test_layers_are_counted_until_they_run_again():
    assert (CATALOG.first_step, CATALOG.num_step_layers) == (2, 2)
    one_of_each = [0, 2, 4, 6]
    assert running((0, 0)).layers_until(one_of_each) == [4, 1, 2, 3]
    assert running((1, 2)).layers_until(one_of_each) == [4, 4, 1, 2]
    assert running((2, 4)).layers_until(one_of_each) == [4, 4, 2, 1]
    assert running((3, 6)).layers_until(one_of_each) == [4, 4, 1, 2]


def test_a_layer_is_over_when_the_next_one_runs():
    over = {position: running((position, 2 * position)).num_over() for position in range(4)}
    assert over == {0: 0, 1: 2, 2: 4, 3: 4}
    assert [running((2, 4)).is_over(p) for p in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_what_an_encoder_has_done_with_leaves_first(policy):
    statistics = running((2, 4), *[(0, 0)] * 50, (1, 2), (2, 4))  # 0 is by far the most used
    residency = Residency(statistics, make_policy(policy), 3 * 4096)
    for expert in (4, 0, 2):
        assert residency.take(expert, True) == []
        residency.admit(expert)
    assert residency.take(6, True) == [0]
    residency.admit(6)
    assert residency.take(7, True) == [2]
    residency.admit(7)
    assert residency.is_resident.nonzero()[0].tolist() == [4, 6, 7]


def test_at_the_next_prompt_an_encoder_counts_again():
    statistics = running((0, 0), (1, 2), (2, 4), (3, 6), (0, 0))
    residency = Residency(statistics, make_policy("lru"), 2 * 4096)
    for expert in (0, 6):
        residency.take(expert, True)
        residency.admit(expert)
    assert residency.take(2, True) == [6], "least recently used of those that may run again"


class Next:
    """Forecasts the first expert of the layer after."""

    def forecast(self, position, x, expert_ids, weights, lookahead):
        return [((position + 1) % 2, np.array([[1.0, 0.0]], np.float32))]


def test_a_predictor_of_steps_is_asked_in_the_decoder_alone():
    x, ids, weights = np.zeros((1, 4), np.float32), np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
    predictor = StepPredictor(Next(), CATALOG.first_step)
    targets = [[t for t, _ in predictor.forecast(p, x, ids, weights, 1)] for p in range(4)]
    assert targets == [[], [], [3], [2]]
    assert StepPredictor(NoPredictor(), 2).forecast(2, x, ids, weights, 1) == []
