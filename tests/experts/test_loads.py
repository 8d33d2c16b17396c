"""Reads under way: who goes first, what is dropped, what a failure leaves, and when bytes are compared."""

from __future__ import annotations

import errno
import threading
import time

import numpy as np
import pytest

from edgemoe.errors import CorruptStoreError, ExpertReadError
from edgemoe.experts import Catalog, ExpertCache, make_policy
from edgemoe.experts.loads import Loads
from edgemoe.native import DEMAND_TRIES
from edgemoe.store import MemoryReader, open_store

ROOM = 6


class Bench:
    """Loads of the tiny store's experts from memory; reads wait for the gate, and are noted in order."""

    def __init__(self, path, verify="first"):
        self.store = open_store(path)
        self.gate = threading.Event()
        self.gate.set()
        self.order = []
        self.faults = {}  # expert -> how often its read still fails
        entries = list(self.store.manifest.experts.items())
        self.contents = [np.fromfile(self.store.path / file, np.uint8) for file in self.store.expert_files]
        self.entries = [entry for _, entry in sorted(entries)]
        self.by_offset = {entry.offset: number for number, entry in enumerate(self.entries)}
        catalog = Catalog({key: entry.num_bytes for key, entry in entries})
        size = int(catalog.num_bytes.max())
        self.cache = ExpertCache(catalog, ROOM * size, make_policy("lru"))
        self.reader = MemoryReader(self.contents, fault=self._fault)
        self.loads = Loads(self.store, self.reader, self.cache, verify)

    def _fault(self, file, offset):
        self.gate.wait(5)
        expert = self.by_offset[offset]
        self.order.append(expert)
        if self.faults.get(expert, 0) > 0:
            self.faults[expert] -= 1
            return errno.EIO
        return 0

    def hold(self, expert=0):
        """Nothing is served until the gate opens: this expert's read is under way, the rest is queued."""
        self.gate.clear()
        assert self.loads.start(expert, priority=1)
        while self.reader._queue:
            time.sleep(0.001)

    def close(self):
        """Stop, and let go of the loads: they hold the reader, whose faults hold this."""
        self.gate.set()
        self.reader.close()
        del self.loads

    def drop(self, expert):
        """Evict an expert."""
        self.cache.residency.is_resident[expert] = False
        self.cache.release(expert)


@pytest.fixture
def bench(tiny_store):
    made = Bench(tiny_store)
    yield made
    made.close()


def test_an_expert_read_ahead_goes_first_once_it_is_needed(bench):
    bench.hold()
    for expert in (1, 2, 3):
        assert bench.loads.start(expert, priority=2)
    bench.loads.demand(3)
    bench.loads.start(4)
    bench.gate.set()
    assert bench.loads.wait([3]) == [3]
    while bench.loads.pending_bytes:
        bench.loads.poll()
    assert bench.order == [0, 3, 4, 1, 2]


def test_a_dropped_read_never_happens_and_its_room_is_free(bench):
    bench.hold()
    for expert in range(1, ROOM):
        assert bench.loads.start(expert, priority=1)
    assert not bench.loads.start(ROOM, priority=1), "there is no more room"
    assert bench.loads.cancel(2)
    assert not bench.loads.cancel(0), "it is being read"
    assert bench.loads.start(ROOM, priority=1)
    bench.gate.set()
    while bench.loads.pending_bytes:
        bench.loads.poll()
    assert 2 not in bench.cache
    assert 2 not in bench.order
    assert all(expert in bench.cache for expert in (0, 1, 3, 4, 5, ROOM))


def test_room_is_made_for_what_is_needed_by_dropping_what_is_not(bench):
    bench.hold()
    for expert in range(1, ROOM):
        assert bench.loads.start(expert, priority=1)
    assert not bench.loads.start(ROOM)
    bench.loads.make_room()
    assert bench.loads.start(ROOM)
    bench.gate.set()
    assert bench.loads.wait([ROOM]) == [ROOM]
    assert ROOM - 1 not in bench.loads, "the last one queued was dropped"


def test_a_read_ahead_that_fails_is_forgotten_and_a_demanded_one_tried_again(bench):
    bench.faults[1] = 1
    bench.loads.start(1, priority=1)
    while bench.loads.pending_bytes:
        bench.loads.poll()
    assert 1 not in bench.cache
    bench.faults[1] = DEMAND_TRIES - 1
    bench.loads.start(1)
    assert bench.loads.wait([1]) == [1]
    assert bench.order == [1] * (1 + DEMAND_TRIES)


def test_a_demanded_read_that_keeps_failing_names_expert_and_offset(bench):
    bench.faults[1] = DEMAND_TRIES
    bench.loads.start(1)
    message = f"layer 0 expert 1 at offset {bench.entries[1].offset} cannot be read: Input/output error"
    with pytest.raises(ExpertReadError, match=message):
        bench.loads.wait([1])
    assert 1 not in bench.loads
    assert bench.cache.residency.used_bytes == bench.loads.pending_bytes == 0
    bench.loads.start(1)
    assert bench.loads.wait([1]) == [1]


@pytest.mark.parametrize(("verify", "reads_until_found"), [("first", 1), ("always", 2), ("never", None)])
def test_damage_is_found_at_the_reads_that_are_compared(tiny_store, verify, reads_until_found):
    """Sound at first and damaged at the second read: only "always" finds it. At once: "first" too."""
    for first_damaged in (1, 2):
        bench = Bench(tiny_store, verify)
        outcomes = []
        for read in (1, 2):
            if read == first_damaged:
                bench.contents[0][bench.entries[1].offset + 5] ^= 1
            bench.loads.start(1)
            try:
                outcomes.append(bench.loads.wait([1]) == [1])
                bench.drop(1)
            except CorruptStoreError:
                outcomes.append(False)
        bench.close()
        is_found = reads_until_found is not None and first_damaged <= reads_until_found
        assert outcomes[first_damaged - 1] == (not is_found)
        assert all(outcomes[: first_damaged - 1])


def test_what_is_not_under_way_can_neither_be_waited_for_nor_dropped(bench):
    absent = len(bench.entries) - 1
    for call in (bench.loads.demand, bench.loads.cancel, lambda expert: bench.loads.wait([expert])):
        with pytest.raises(ValueError, match=f"expert {absent} is not being read"):
            call(absent)
        with pytest.raises(ValueError, match="no expert number 999"):
            call(999)
    bench.loads.start(1)
    for call in (bench.loads.start, bench.cache.reserve):
        with pytest.raises(ValueError, match="expert 1 has room already"):
            call(1)
    with pytest.raises(ValueError, match=f"expert {absent} has no room"):
        bench.cache.release(absent)
    assert bench.loads.wait([1]) == [1]
