"""The cache as a state machine against a dictionary, and LRU by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgemoe.errors import RequestError
from edgemoe.experts import ExpertCache, make_policy
from edgemoe.native import ExpertWeights, Matrix

SLOT_BYTES = 4096
KEYS = [(layer, expert) for layer in range(3) for expert in range(3)]


def weights_in(slot):
    matrix = Matrix(slot.buffer, "f32", 1, 32)
    return ExpertWeights(matrix, matrix, matrix)


def load(cache, key):
    slot = cache.reserve()
    assert slot is not None
    cache.admit(key, slot, weights_in(slot))


def test_the_least_recently_used_leaves_first():
    cache = ExpertCache(2, SLOT_BYTES, make_policy("lru"))
    load(cache, (0, 0))
    load(cache, (0, 1))
    cache.pin((0, 0))
    cache.unpin((0, 0))
    load(cache, (0, 2))
    assert (0, 0) in cache
    assert (0, 1) not in cache


def test_pinned_experts_stay_and_a_full_cache_says_so():
    cache = ExpertCache(2, SLOT_BYTES, make_policy("lru"))
    load(cache, (0, 0))
    load(cache, (0, 1))
    cache.pin((0, 0))
    cache.pin((0, 1))
    assert cache.reserve() is None
    cache.unpin((0, 1))
    load(cache, (0, 2))
    assert (0, 0) in cache


def test_a_failed_load_gives_its_slot_back():
    cache = ExpertCache(1, SLOT_BYTES, make_policy("lru"))
    slot = cache.reserve()
    assert cache.reserve() is None
    cache.release(slot)
    load(cache, (0, 0))


def test_slots_are_disjoint_and_aligned():
    cache = ExpertCache(3, SLOT_BYTES, make_policy("lru"))
    slots = [cache.reserve() for _ in range(3)]
    for value, slot in enumerate(slots):
        slot.buffer[:] = value
        assert slot.buffer.ctypes.data % 4096 == 0
    assert [int(slot.buffer.max()) for slot in slots] == [0, 1, 2]


def test_unknown_policy_is_refused():
    with pytest.raises(RequestError, match="choose one of lru"):
        make_policy("mru")


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of loads, uses and pins against a model: a dictionary of what is resident and pinned."""

    def __init__(self):
        super().__init__()
        self.cache = ExpertCache(3, SLOT_BYTES, make_policy("lru"))
        self.contents = {}
        self.order = []
        self.pinned = set()

    @rule(key=st.sampled_from(KEYS))
    def use(self, key):
        if key in self.contents:
            self.order.remove(key)
            self.order.append(key)
            assert np.all(self.cache.pin(key).gate.packed == self.contents[key])
            if key not in self.pinned:
                self.cache.unpin(key)
            return
        slot = self.cache.reserve()
        free_to_leave = [k for k in self.order if k not in self.pinned]
        if len(self.contents) == 3:
            if not free_to_leave:
                assert slot is None
                return
            self.order.remove(free_to_leave[0])
            del self.contents[free_to_leave[0]]
        value = KEYS.index(key)
        slot.buffer[:] = value
        self.cache.admit(key, slot, weights_in(slot))
        self.contents[key] = value
        self.order.append(key)

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def pin(self, data):
        key = data.draw(st.sampled_from(sorted(self.contents)))
        self.cache.pin(key)
        self.pinned.add(key)
        self.order.remove(key)
        self.order.append(key)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data):
        key = data.draw(st.sampled_from(sorted(self.pinned)))
        self.cache.unpin(key)
        self.pinned.discard(key)

    @invariant()
    def resident_is_what_the_model_says(self):
        assert {key for key in KEYS if key in self.cache} == set(self.contents)
        assert len(self.cache) == len(self.contents) <= 3


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
