"""What each policy lets go first, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.experts import POLICIES, Catalog, UseStatistics, make_policy

# Three layers of two experts: numbers 0, 1 | 2, 3 | 4, 5.
CATALOG = Catalog({(layer, expert): 4096 for layer in (1, 4, 7) for expert in range(2)})


def statistics_after(uses):
    """``uses`` are (position, expert number), each a layer run for one token."""
    statistics = UseStatistics(CATALOG)
    for position, expert in uses:
        first = CATALOG.span(position).start
        statistics.observe(position, np.array([[expert - first]], np.int32))
    return statistics


def first_to_leave(policy, uses, candidates):
    worth = make_policy(policy).worth(statistics_after(uses), candidates)
    return candidates[int(np.argmin(worth))]


def test_lru_goes_by_time_and_lfu_by_number():
    uses = [(0, 0), (1, 2), (2, 4), (0, 0), (1, 3), (2, 5), (0, 0)]
    assert first_to_leave("lru", uses, [0, 2, 4]) == 2
    assert first_to_leave("lfu", [*uses, (1, 3), (1, 3)], [0, 2, 3]) == 2


def test_frequency_forgets():
    early, late = [(0, 0)] * 20, [(0, 1)] * 200
    statistics = statistics_after(early + late)
    assert statistics.frequency[1] > 0.9
    assert statistics.frequency[0] < 0.05


def test_lfru_weighs_both():
    uses = [(0, 0)] * 10 + [(1, 2)] * 6
    assert first_to_leave("lfru", uses, [0, 2]) == 0, "frequent, but long ago"
    assert first_to_leave("lfu", uses, [0, 2]) == 2


def test_edgemoe_keeps_the_next_layers_and_the_printed_formula_does_not():
    # All used equally often; layer position 0 has just run: 2, 3 come next, then 4, 5, then 0, 1.
    uses = [(0, 0), (1, 2), (2, 4)] * 30 + [(0, 0)]
    statistics = statistics_after(uses)
    assert statistics.layers_until([0, 2, 4]) == [3, 1, 2]
    assert first_to_leave("edgemoe", uses, [2, 4]) == 4
    assert first_to_leave("edgemoe-printed", uses, [2, 4]) == 2


def test_a_forecast_keeps_what_was_not_used_but_will_be():
    statistics = statistics_after([(0, 0), (1, 2), (2, 4)] * 30)
    candidates = [2, 3]
    forecast, edgemoe = make_policy("forecast"), make_policy("edgemoe")
    assert np.array_equal(forecast.worth(statistics, candidates), edgemoe.worth(statistics, candidates))
    statistics.expect(1, np.array([0.0, 1.0], np.float32))
    assert np.argmin(forecast.worth(statistics, candidates)) == 0
    assert np.argmin(edgemoe.worth(statistics, candidates)) == 1
    statistics.expect(1, np.array([0.3, 0.4], np.float32))
    assert np.argmin(forecast.worth(statistics, candidates)) == 1, "what was used counts as much"


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_an_expert_never_used_leaves_before_one_in_constant_use(policy):
    uses = [(0, 0), (1, 2), (2, 4)] * 10
    assert first_to_leave(policy, uses, [2, 3]) == 3
