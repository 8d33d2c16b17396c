"""The compiled books of the cache against the NumPy ones, over any course of events."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import eviction_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemoe.experts import POLICIES, Catalog, Residency, UseStatistics, make_policy
from edgemoe.experts.policies import HALF_LIFE_TOKENS
from edgemoe.experts.residency import FLOOR_SHARE
from edgemoe.native import EvictionPolicy

PAGE, NUM_LAYERS, NUM_EXPERTS = 4096, 4, 6
RECORDS = {
    (layer, expert): PAGE * (1 + (layer + expert) % 3)
    for layer in range(NUM_LAYERS)
    for expert in range(NUM_EXPERTS)
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("num_encoder_layers", [0, 2])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), pages=st.integers(6, 30))
def test_the_same_experts_leave(policy, num_encoder_layers, seed, pages):
    assert reference.FLOOR_SHARE == FLOOR_SHARE
    random = np.random.default_rng(seed)
    catalog = Catalog(RECORDS, num_encoder_layers)
    statistics, books_statistics = (
        UseStatistics(catalog),
        reference.Statistics(catalog, HALF_LIFE_TOKENS),
    )
    residency = Residency(statistics, make_policy(policy), pages * PAGE)
    books = reference.Books(books_statistics, policy, pages * PAGE)
    num_left = 0
    for step in range(60):
        position = step % NUM_LAYERS
        ids = random.integers(0, NUM_EXPERTS, (random.integers(1, 3), 2)).astype(np.int32)
        chosen = statistics.observe(position, ids)
        assert chosen == books_statistics.observe(position, ids)
        uses = random.normal(0.1, 0.3, NUM_EXPERTS).astype(np.float32)
        statistics.expect(position, uses)
        books_statistics.expect(position, uses)
        missing = residency.missing(chosen)
        assert missing == [expert for expert in chosen if not books.is_resident[expert]]
        hits = [expert for expert in chosen if expert not in missing]
        ahead = [int(e) for e in random.integers(0, len(catalog), 2) if not books.is_held[e]]
        residency.pin(hits)
        books.is_pinned[hits] = True
        residency.reserve(ahead, True)
        books.is_reserved[ahead] = True
        for expert, is_demand in [*((e, True) for e in missing), *((e, False) for e in ahead)]:
            if books.is_held[expert]:
                continue
            leaving = residency.take(expert, is_demand)
            assert leaving == books.take(expert, is_demand)
            if leaving is not None:
                num_left += len(leaving)
                if random.random() < 0.9:
                    residency.admit(expert)
                    books.is_resident[expert] = True
                else:
                    residency.drop(expert)
                    books.drop(expert)
        residency.reserve(ahead, False)
        books.is_reserved[ahead] = False
        residency.unpin(hits)
        books.is_pinned[hits] = False
        assert np.array_equal(residency.is_resident, books.is_resident)
        assert residency.used_bytes == catalog.num_bytes[books.is_held].sum() <= residency.capacity_bytes
    assert np.allclose(statistics.frequency, books_statistics.frequency, rtol=1e-12)
    assert np.array_equal(statistics.expected, books_statistics.expected)
    assert num_left > 0


class Wordless(EvictionPolicy):
    """Has nothing to say."""

    def worth(self, statistics, candidates):
        return []


def test_a_policy_must_speak_of_every_candidate():
    catalog = Catalog(RECORDS)
    wordless = Wordless(depends_on_layer=False)
    residency = Residency(UseStatistics(catalog), wordless, int(catalog.num_bytes[0]))
    residency.take(0, True)
    residency.admit(0)
    with pytest.raises(ValueError, match="one value for each candidate"):
        residency.take(1, True)
    assert residency.is_resident[0]


def test_what_does_not_exist_is_refused():
    catalog = Catalog(RECORDS)
    statistics = UseStatistics(catalog)
    residency = Residency(statistics, make_policy("lru"), 4 * PAGE)
    one = np.zeros((1, 1), np.int32)
    for refused in (
        lambda: statistics.observe(NUM_LAYERS, one),
        lambda: statistics.observe(0, one + NUM_EXPERTS),
        lambda: statistics.observe(0, one[:0]),
        lambda: statistics.expect(0, np.zeros(NUM_EXPERTS + 1, np.float32)),
        lambda: statistics.layers_until([len(catalog)]),
        lambda: residency.take(-1, True),
        lambda: residency.pin([0, len(catalog)]),
        lambda: make_policy("lru").worth(statistics, [len(catalog)]),
    ):
        with pytest.raises(
            ValueError, match=r"no layer|no expert|outside its layer|no tokens|number of uses"
        ):
            refused()
