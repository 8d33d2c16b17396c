"""The cache as a state machine against a dictionary, for every policy, with records of mixed sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgemoe.errors import RequestError
from edgemoe.experts import POLICIES, Catalog, ExpertCache, make_policy

PAGE = 4096
SIZES = (PAGE, 2 * PAGE, 3 * PAGE)
MIXED = {(layer, expert): SIZES[(layer + expert) % 3] for layer in range(3) for expert in range(4)}
EVEN = {(0, expert): PAGE for expert in range(4)}


def new_cache(records, pages, policy="lru"):
    return ExpertCache(Catalog(records), pages * PAGE, make_policy(policy))


def load(cache, expert, is_demand=True):
    buffer = cache.reserve(expert, is_demand)
    assert buffer is not None
    cache.admit(expert)
    return buffer


def use(cache, expert):
    position = int(cache.catalog.layer_position[expert])
    cache.statistics.observe(position, np.array([[expert - cache.catalog.span(position).start]], np.int32))


def test_the_least_recently_used_leaves_first():
    cache = new_cache(EVEN, 2)
    for expert in (0, 1, 0):
        if expert not in cache:
            load(cache, expert)
        use(cache, expert)
    load(cache, 2)
    assert 0 in cache
    assert 1 not in cache


def test_pinned_experts_stay_and_a_full_cache_says_so():
    cache = new_cache(EVEN, 2)
    load(cache, 0)
    load(cache, 1)
    cache.residency.pin([0, 1])
    assert cache.reserve(2) is None
    cache.residency.unpin([1])
    load(cache, 2)
    assert 0 in cache


def test_an_expected_expert_leaves_only_for_one_that_is_needed():
    cache = new_cache(EVEN, 1)
    load(cache, 0)
    cache.residency.reserve([0], True)
    assert cache.reserve(1, is_demand=False) is None
    load(cache, 1)
    assert 0 not in cache


def test_a_layer_keeps_its_floor_against_other_layers():
    records = {(layer, expert): PAGE for layer in range(2) for expert in range(16)}
    cache = new_cache(records, 16)
    for expert in range(2):
        load(cache, expert)
        use(cache, expert)
    for expert in range(16, 32):  # the other layer, used ever more recently
        load(cache, expert)
        use(cache, expert)
    assert sum(expert in cache for expert in range(2)) == 2  # the floor is 16 / (4 * 2) pages
    assert len(cache) == 16


def test_a_failed_load_gives_its_room_back():
    cache = new_cache(EVEN, 1)
    cache.reserve(0)
    assert cache.reserve(1) is None
    cache.release(0)
    load(cache, 1)


def test_records_are_disjoint_and_aligned():
    cache = new_cache(EVEN, 3)
    buffers = [cache.reserve(expert) for expert in range(3)]
    for value, buffer in enumerate(buffers):
        buffer[:] = value
        assert buffer.ctypes.data % PAGE == 0
    assert [int(buffer.max()) for buffer in buffers] == [0, 1, 2]


def filled(sizes, capacity_bytes):
    """A cache of one layer of experts of these sizes, loaded and used in turn as far as there is room."""
    catalog = Catalog({(0, expert): size for expert, size in enumerate(sizes)})
    cache = ExpertCache(catalog, capacity_bytes, make_policy("lru"))
    for expert in range(len(sizes)):
        if not cache.residency.has_room(expert):
            break
        load(cache, expert)[:] = expert + 1
        use(cache, expert)
    return cache


def test_neighbours_leave_for_a_larger_expert():
    """Not the two that are worth least, which do not lie side by side."""
    cache = filled([PAGE] * 6 + [2 * PAGE], 6 * PAGE)
    for expert in (2, 3, 2, 3, 1):  # from the least worth on: 0, 4, 5, 2, 3, 1
        use(cache, expert)
    load(cache, 6)[:] = 7
    assert {e for e in range(7) if e in cache} == {0, 1, 2, 3, 6}
    assert all(np.all(cache.record(e) == e + 1) for e in (0, 1, 2, 3, 6))


def test_what_fits_between_others_comes_without_any_leaving():
    cache = filled([2 * PAGE, PAGE, PAGE, PAGE, PAGE], 5 * PAGE)
    load(cache, 4)
    assert len(cache) == 4, "the one that was worth least left, of two pages for one"
    assert cache.residency.has_room(0) is False
    assert [cache.residency.has_room(e) for e in range(5) if e not in cache] == [False]
    use(cache, 4)
    cache.residency.pin([1, 2, 3, 4])
    assert cache.reserve(0) is None


def test_an_expert_that_is_needed_lies_apart_where_free_bytes_are_in_pieces():
    sizes = [PAGE, PAGE, PAGE, PAGE, 2 * PAGE]
    cache = filled(sizes, 4 * PAGE)
    cache.residency.pin([1, 3])
    assert cache.reserve(4, is_demand=False) is None
    assert len(cache) == 4
    load(cache, 4)[:] = 5
    assert {e for e in range(5) if e in cache} == {1, 3, 4}
    assert all(np.all(cache.record(e) == e + 1) for e in (1, 3, 4))
    assert not cache.residency.has_room(0), "bytes between the others are used by what lies apart"
    use(cache, 4)
    cache.residency.pin([4])
    assert cache.reserve(0) is None
    cache.residency.unpin([1, 3, 4])
    load(cache, 0)[:] = 1
    assert {e for e in range(5) if e in cache} == {0, 1, 3}, "what lies apart leaves first"


@pytest.mark.parametrize("pinned", [(), (1, 4, 7, 10)])
def test_large_records_take_no_more_memory_than_there_is(pinned):
    """Huge pages hold parts of neighbours, and what lies apart takes the place of holes."""
    small, large, capacity = 3 << 20, 5 << 20, 36 << 20
    before = resident_bytes()
    cache = filled([small] * 12 + [large] * 8, capacity)
    assert len(cache) == 12
    cache.residency.pin(list(pinned))
    for expert in range(12, 17):
        load(cache, expert)[:] = expert + 1
        use(cache, expert)
        assert resident_bytes() - before <= capacity + (1 << 20)
    there = [e for e in range(20) if e in cache]
    assert set(pinned) <= set(there)
    for expert in there:
        assert np.all(cache.record(expert) == expert + 1)
    assert cache.residency.used_bytes <= capacity


def test_with_room_for_all_any_of_them_comes_at_any_time():
    """Though some were given up and others came in between."""
    cache = ExpertCache(Catalog(MIXED), sum(MIXED.values()), make_policy("lru"))
    assert cache.holds_all
    for expert in (0, 2, 4):
        cache.reserve(expert)
    for expert in (0, 2):
        cache.release(expert)
    for expert in reversed(range(len(MIXED))):
        if expert != 4:
            load(cache, expert)[:] = expert
    assert len(cache) == len(MIXED) - 1
    assert all(np.all(cache.record(e) == e) for e in range(len(MIXED)) if e != 4)


def resident_bytes():
    """Of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_unknown_policy_is_refused():
    with pytest.raises(RequestError, match="choose one of lru"):
        make_policy("mru")


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of loads, uses, failures and pins: contents are right and bytes never exceed."""

    def __init__(self):
        super().__init__()
        self.contents = {}
        self.loading = {}
        self.pinned = set()

    @initialize(policy=st.sampled_from(sorted(POLICIES)), pages=st.integers(3, 12))
    def begin(self, policy, pages):
        self.cache = new_cache(MIXED, pages, policy)

    @rule(expert=st.integers(0, len(MIXED) - 1), is_demand=st.booleans(), value=st.integers(1, 255))
    def reserve(self, expert, is_demand, value):
        if expert in self.contents or expert in self.loading:
            return
        before = set(self.contents)
        buffer = self.cache.reserve(expert, is_demand)
        stays = {e for e in before if e in self.cache}
        if buffer is None:
            assert stays == before, "something left for nothing"
            return
        assert len(buffer) == self.cache.catalog.num_bytes[expert]
        buffer[:] = value
        self.contents = {e: v for e, v in self.contents.items() if e in stays}
        self.loading[expert] = value

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), succeeds=st.booleans())
    def arrive(self, data, succeeds):
        expert = data.draw(st.sampled_from(sorted(self.loading)))
        value = self.loading.pop(expert)
        if succeeds:
            self.cache.admit(expert)
            self.contents[expert] = value
        else:
            self.cache.release(expert)

    @precondition(lambda self: self.contents)
    @rule(data=st.data(), keeps=st.booleans())
    def pin(self, data, keeps):
        expert = data.draw(st.sampled_from(sorted(self.contents)))
        self.cache.residency.pin([expert])
        assert np.all(self.cache.record(expert) == self.contents[expert])
        use(self.cache, expert)
        self.pinned.add(expert)
        if not keeps:
            self.cache.residency.unpin([expert])
            self.pinned.discard(expert)

    @invariant()
    def contents_are_as_written(self):
        if not hasattr(self, "cache"):
            return
        assert {e for e in range(len(MIXED)) if e in self.cache} == set(self.contents)
        assert self.pinned <= set(self.contents)
        for expert, value in self.contents.items():
            assert np.all(self.cache.record(expert) == value)
        held = [*self.contents, *self.loading]
        used = int(self.cache.catalog.num_bytes[held].sum()) if held else 0
        assert self.cache.residency.used_bytes == used <= self.cache.residency.capacity_bytes


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
