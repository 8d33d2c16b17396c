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
from edgemoe.native import SlotArena

PAGE = 4096
SIZES = (PAGE, 2 * PAGE, 3 * PAGE)
MIXED = {(layer, expert): SIZES[(layer + expert) % 3] for layer in range(3) for expert in range(4)}
EVEN = {(0, expert): PAGE for expert in range(4)}


class Slot:
    """A slot of an arena for a record of this size."""

    def __init__(self, arena, num_bytes):
        self.arena = arena
        self.number = arena.take(num_bytes)
        self.buffer = arena.buffer(self.number, num_bytes)

    def give(self):
        self.arena.give(self.number)


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


def test_a_failed_load_gives_its_slot_back():
    cache = new_cache(EVEN, 1)
    cache.reserve(0)
    assert cache.reserve(1) is None
    cache.release(0)
    load(cache, 1)


def test_slots_are_disjoint_and_aligned():
    cache = new_cache(EVEN, 3)
    buffers = [cache.reserve(expert) for expert in range(3)]
    for value, buffer in enumerate(buffers):
        buffer[:] = value
        assert buffer.ctypes.data % PAGE == 0
    assert [int(buffer.max()) for buffer in buffers] == [0, 1, 2]


def test_the_arena_returns_pages_that_hold_nothing_before_it_takes_more():
    arena = SlotArena(6 * PAGE, SIZES)
    small = [Slot(arena, PAGE) for _ in range(6)]
    for slot in small:
        slot.buffer[:] = 7
        slot.give()
    large = [Slot(arena, 3 * PAGE) for _ in range(2)]
    for slot in large:
        slot.buffer[:] = 9
    assert arena.touched_bytes == 6 * PAGE
    taken = {slot.number for slot in large}
    others = [slot for slot in small if slot.number not in taken]
    assert len(others) == 4
    assert not any(slot.buffer.any() for slot in others), "their pages were not given back"


def test_a_slot_keeps_the_pages_behind_a_small_record_until_they_are_wanted():
    arena = SlotArena(4 * PAGE, SIZES)
    slot = Slot(arena, 3 * PAGE)
    slot.buffer[:] = 5
    slot.give()
    small = Slot(arena, PAGE)
    assert (small.number, arena.touched_bytes) == (slot.number, 3 * PAGE)
    assert np.all(slot.buffer == 5)
    Slot(arena, 3 * PAGE)
    assert arena.touched_bytes == 4 * PAGE
    assert np.all(small.buffer == 5), "the record itself was touched"
    assert not slot.buffer[PAGE:].any(), "what lies behind it was not given back"


def test_large_slots_of_several_sizes_take_no_more_memory_than_they_have():
    """Huge pages lie within slots: giving one back frees all of it, and nothing of its neighbours."""
    sizes = (3 << 20, 5 << 20)
    arena = SlotArena(30 << 20, sizes)
    before = resident_bytes()
    slots = [Slot(arena, sizes[0]) for _ in range(10)]
    for value, slot in enumerate(slots):
        slot.buffer[:] = value + 1
    assert resident_bytes() - before <= arena.touched_bytes + (1 << 20)
    for slot in slots[::2]:
        slot.give()
    for _ in range(3):  # 15 MiB instead of 5 slots of 3 MiB
        Slot(arena, sizes[1]).buffer[:] = 99
    assert arena.touched_bytes <= 30 << 20
    assert resident_bytes() - before <= arena.touched_bytes + (1 << 20)
    for value, slot in list(enumerate(slots))[1::2]:
        assert np.all(slot.buffer == value + 1)


def test_records_that_nearly_fill_a_huge_page_take_it():
    huge, nearly, large = 2 << 20, 15 << 17, 3 << 20
    arena = SlotArena(6 * huge, [nearly, large] * 4)
    assert arena.slot_num_bytes(nearly) == huge
    assert arena.slot_num_bytes(large) == large
    before = resident_bytes()
    slots = [Slot(arena, nearly) for _ in range(6)]
    for slot in slots:
        assert len(slot.buffer) == nearly
        assert slot.buffer.ctypes.data % huge == 0
        slot.buffer[:] = 1
    assert arena.touched_bytes == 6 * huge
    assert resident_bytes() - before <= arena.touched_bytes + (1 << 20)
    assert SlotArena(4 * (nearly + large), [nearly, large] * 4).slot_num_bytes(nearly) == nearly, "all fit"
    assert SlotArena(6 * huge, [nearly - PAGE, large] * 4).slot_num_bytes(nearly) == nearly, "not that near"
    mostly = 12 << 17
    assert SlotArena(4 * huge, [mostly, large] * 4).slot_num_bytes(mostly) == huge, "less than half fits"
    assert SlotArena(6 * huge, [mostly, large] * 4).slot_num_bytes(mostly) == mostly


def test_slots_take_whole_pages_where_these_are_larger_than_on_most_machines():
    """Such as 16 KiB on some boards: part of a page cannot go back to the system."""
    large_page = 4 * PAGE
    arena = SlotArena(3 * large_page, [*SIZES, 5 * PAGE] * 4, large_page)
    assert [arena.slot_num_bytes(size) for size in (PAGE, 5 * PAGE)] == [large_page, 2 * large_page]
    small = [Slot(arena, PAGE) for _ in range(3)]
    assert all((b.buffer.ctypes.data - small[0].buffer.ctypes.data) % large_page == 0 for b in small)
    for slot in small:
        slot.give()
    Slot(arena, 5 * PAGE)
    assert arena.touched_bytes == 3 * large_page
    assert SlotArena(1 << 20, SIZES, large_page).slot_num_bytes(PAGE) == PAGE, "all fit: nothing goes back"


def test_a_cache_counts_what_slots_take():
    huge, nearly, large = 2 << 20, 15 << 17, 3 << 20
    records = {(0, expert): (nearly, large)[expert % 2] for expert in range(8)}
    cache = ExpertCache(Catalog(records), 3 * huge, make_policy("lru"))
    for expert in (0, 2, 4, 6):
        assert cache.has_free_room(expert) is (expert < 6)
        load(cache, expert)
        use(cache, expert)
    assert (len(cache), cache.residency.used_bytes) == (3, 3 * huge)


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
