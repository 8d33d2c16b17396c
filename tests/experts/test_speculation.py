"""When reading ahead is done and when it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemoe.experts import (
    Catalog,
    ExpertCache,
    GatePredictor,
    NoPredictor,
    Pace,
    Speculation,
    make_policy,
    pays,
)
from edgemoe.experts.governor import KEEP_TOKENS, TRIAL_TOKENS, TURN_TOKENS, Governor

MS = 1e-3


def test_a_likely_read_that_fits_pays_and_one_for_far_too_slow_storage_does_not():
    assert pays(0.8, 1 * MS, 2 * MS)
    assert not pays(0.8, 40 * MS, 2 * MS)
    assert not pays(0.02, 1 * MS, 2 * MS)
    assert not pays(0.8, 1 * MS, -1 * MS), "too late"


@given(
    probability=st.floats(0, 1),
    more=st.floats(0, 1),
    read_s=st.floats(1e-5, 1),
    until_s=st.floats(0, 1),
    issue_s=st.floats(0, 1e-3),
)
def test_what_pays_still_pays_when_likelier_or_cheaper(probability, more, read_s, until_s, issue_s):
    if pays(probability, read_s, until_s, issue_s):
        assert pays(max(probability, more), read_s, until_s, issue_s)
        assert pays(probability, read_s, until_s, 0.0)


def run(governor, num_tokens, seconds):
    """Tokens of two layers; ``seconds`` by whether speculation is on. Returns the share with it on."""
    on = 0
    for _ in range(2 * num_tokens):
        on += governor.is_on
        governor.layer_took(seconds[governor.is_on])
    return on / (2 * num_tokens)


def test_the_governor_keeps_what_is_faster_and_looks_again():
    governor = Governor(num_layers=2)
    assert run(governor, TRIAL_TOKENS, {True: 2 * MS}) == 1, "while the cache is filled nothing is timed"
    share = run(governor, TRIAL_TOKENS, {True: 2 * MS, False: 1 * MS})
    assert share == 0.5, "both ways are timed over as many tokens"
    assert not governor.is_on
    rounds = 4 * (TRIAL_TOKENS + KEEP_TOKENS)
    share = run(governor, rounds, {True: 2 * MS, False: 1 * MS})
    assert 0 < share < 0.06, "off but for trials"
    share = run(governor, rounds, {True: 1 * MS, False: 2 * MS})
    assert share > 0.7, "the text changed: on again but for trials"


def test_the_governor_keeps_what_it_had_where_it_cannot_tell():
    """Turns of 1 to 3 ms, as many of each either way, but for the time that reading ahead costs."""
    governor = Governor(num_layers=1)
    for _ in range(TRIAL_TOKENS):
        governor.layer_took(MS)
    for cost_s, is_on in ((0.0, True), (0.1 * MS, True), (5 * MS, False), (-0.1 * MS, False)):
        for token in range(TRIAL_TOKENS + KEEP_TOKENS):
            turn = token // (2 * TURN_TOKENS)  # of either way
            governor.layer_took((1 + turn % 3) * MS + (cost_s if governor.is_on else 0.0))
        assert governor.is_on is is_on


def test_one_turn_that_was_held_up_decides_nothing():
    governor = Governor(num_layers=1)
    for _ in range(TRIAL_TOKENS):
        governor.layer_took(MS)
    for token in range(TRIAL_TOKENS):
        held_up_s = 20 * MS if token == TURN_TOKENS else 0.0  # in the first turn that is off
        governor.layer_took((1.4 * MS if governor.is_on else MS) + held_up_s)
    assert not governor.is_on


class Line:
    """Reads under way that never end; see Reads."""

    def __init__(self, demanded_bytes, ahead_bytes):
        self.pending_bytes, self.demanded_bytes = demanded_bytes + ahead_bytes, demanded_bytes
        self.started = []

    def __contains__(self, expert):
        return expert in self.started

    def start(self, expert, priority):
        self.started.append(expert)
        self.pending_bytes += 4096
        return True

    def begin(self):
        pass


class Foretells:
    """Sure of the next layer's first two experts."""

    def forecast(self, position, x, expert_ids, weights, lookahead):
        return [(position + 1, np.array([[2.0, 1.0, 0.0, 0.0]], np.float32))]


@pytest.mark.parametrize(
    ("demanded", "ahead", "started"),
    [
        (0, 0, [4, 5]),
        # The next router waits for what is demanded: a read behind that is in time, or half of one is.
        (20, 0, [4]),
        # What was read ahead before holds up reads, but not the router.
        (0, 20, []),
    ],
)
def test_a_read_is_in_time_where_the_router_waits_too(demanded, ahead, started):
    catalog = Catalog({(layer, expert): 4096 for layer in range(3) for expert in range(4)})
    cache = ExpertCache(catalog, 4 * 4096, make_policy("lru"))
    pace = Pace(bytes_per_s=4096 / MS, clock=iter(np.arange(100) * 1e-9).__next__)
    pace._layer_s = {True: 2 * MS, False: 2 * MS}  # two reads' time
    line = Line(demanded * 4096, ahead * 4096)
    speculation = Speculation(cache, line, Foretells(), 2, pace)
    x, ids = np.zeros((1, 32), np.float32), np.zeros((1, 2), np.int32)
    speculation.start(0, x, ids, x[:, :2])
    assert line.started == started


def test_without_a_predictor_nothing_is_timed_or_asked():
    def no_clock():
        raise AssertionError("the clock was asked")

    catalog = Catalog({(0, 0): 4096, (0, 1): 4096})
    cache = ExpertCache(catalog, 4096, make_policy("lru"))
    pace = Pace(clock=no_clock)
    x, ids = np.zeros((1, 32), np.float32), np.zeros((1, 1), np.int32)
    none = Speculation(cache, None, NoPredictor(), 1, pace)
    none.start(0, x, ids, x[:, :1])
    assert not none.is_on
    assert Speculation(cache, None, GatePredictor({}, [2]), 1, pace).is_on


def test_while_reading_ahead_is_off_layers_are_only_counted_until_the_next_trial():
    catalog = Catalog({(layer, 0): 4096 for layer in range(3)})
    pace = Pace(clock=iter(np.arange(1e6)).__next__)
    cache = ExpertCache(catalog, 4096, make_policy("lru"))
    speculation = Speculation(cache, Line(0, 0), GatePredictor({}, [1]), 1, pace)
    assert not speculation.rests(0, 1), "it is on"
    speculation._governor.is_on = speculation._governor._kept = False
    assert not speculation.rests(0, 4), "prompts are read ahead whatever the clock says of single tokens"
    pace.layer_begins(1, 0.0)
    count, rested = speculation._governor._count, 0
    while speculation.rests(rested % 3, 1):
        rested += 1
    assert speculation._governor._is_trial
    assert rested == pytest.approx((3 * KEEP_TOKENS - count) * 3 / 2, abs=2), "a token's first is not counted"
    pace.layer_begins(1, 0.0)
    assert pace.last_layer_s == 0, "the long time before is no layer's"
