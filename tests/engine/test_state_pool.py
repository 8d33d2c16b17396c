"""Room for texts: never more than there is, nothing lost, nothing shared wrongly."""

from __future__ import annotations

import mmap
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edgemoe.engine import state_pool
from edgemoe.engine.holding import common_prefix
from edgemoe.engine.scheduler import Cancelled, Scheduler
from edgemoe.engine.state_pool import StatePool
from edgemoe.models import read_spec
from edgemoe.store import open_store
from edgemoe.workflows.demo import demo_store

CONTEXT = 512
with demo_store() as folder:
    SPEC = read_spec(open_store(folder).config)


def wide(spec):
    """A few tokens fill a page, of no head the same number."""
    mixers = [
        replace(layer.mixer, num_kv_heads=2, head_dim=head_dim, value_dim=value_dim)
        for layer, head_dim, value_dim in zip(spec.layers, (512, 288), (256, 160), strict=False)
    ]
    layers = zip(spec.layers, mixers, strict=False)
    return replace(spec, layers=tuple(replace(layer, mixer=mixer) for layer, mixer in layers))


WIDE = wide(SPEC)
SHARED = 64  # tokens of WIDE that fill enough pages to be shared


def pool_of(num_contexts, spec=SPEC):
    capacity = int(num_contexts * spec.state_num_bytes(CONTEXT))
    return StatePool(spec, CONTEXT, "f16", capacity, Scheduler())


def write(holding, token_ids):
    """As if these tokens had been computed: their keys and values are their numbers."""
    state, count = holding.state, len(token_ids)
    if not count:
        return
    for slots in state.layers:
        start = slots.place(state.length, count)
        for array in (slots.keys, slots.values):
            array[:, start : start + count] = np.asarray(token_ids)[:, None]
    state.length += count
    holding.token_ids += token_ids


def written(holding):
    """What keys and values say, layer by layer; they agree."""
    length = len(holding.token_ids)
    assert holding.state.length == length
    some = slice(0, None, 64)  # of every page
    texts = [a[:, :length, some] for slots in holding.state.layers for a in (slots.keys, slots.values)]
    for text in texts:
        assert np.array_equal(text, np.broadcast_to(texts[0][:1, :, :1], text.shape))
    return texts[0][0, :, 0].astype(int).tolist()


class Texts(RuleBasedStateMachine):
    """Texts that come, grow, end and are left, against what each should hold."""

    open_texts = Bundle("texts")

    def __init__(self):
        super().__init__()
        self.pool = pool_of(2, WIDE)
        self.expected = {}  # what each open text should hold

    @rule(
        target=open_texts,
        beginning=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        length=st.integers(1, CONTEXT // 2) | st.just(SHARED * 2),
        room=st.integers(1, CONTEXT),
    )
    def begin(self, beginning, length, room):
        return self.borrow((beginning * length)[:length], room)

    @rule(
        target=open_texts,
        holding=open_texts,
        eighths=st.integers(1, 8),
        more=st.lists(st.integers(1, 3), min_size=1, max_size=40),
        room=st.integers(1, CONTEXT),
    )
    def begin_alike(self, holding, eighths, more, room):
        _, tokens, _ = self.expected.get(id(holding), (None, [1, 2] * SHARED, 0))
        return self.borrow([*tokens[: eighths * len(tokens) // 8], *more][:CONTEXT], room)

    def borrow(self, token_ids, room):
        holding = self.pool.borrow((), token_ids, max(room, len(token_ids)))
        assert len(holding.token_ids) < len(token_ids)
        assert holding.token_ids == token_ids[: len(holding.token_ids)]
        write(holding, token_ids[len(holding.token_ids) :])
        self.pool.unpin(holding)
        self.expected[id(holding)] = (holding, list(token_ids), max(room, len(token_ids)))
        return holding

    @rule(holding=open_texts, token_id=st.integers(1, 3), count=st.integers(1, 60))
    def grow(self, holding, token_id, count):
        _, tokens, room = self.expected.get(id(holding), (None, [], 0))
        if len(tokens) + count > room or not self.pool.pin(holding):
            return
        write(holding, [token_id] * count)
        tokens += [token_id] * count
        self.pool.unpin(holding)

    @rule(holding=open_texts, eighths=st.integers(0, 8))
    def rewind(self, holding, eighths):
        _, tokens, _ = self.expected.get(id(holding), (None, [], 0))
        length = eighths * len(tokens) // 8
        if tokens and self.pool.pin(holding, length):
            del tokens[length:]
            self.pool.unpin(holding)

    @rule(holding=consumes(open_texts), is_kept=st.booleans())
    def end(self, holding, is_kept):
        if self.expected.pop(id(holding), None) is not None:
            self.pool.give_back(holding, is_kept=is_kept)

    @rule(holding=consumes(open_texts))
    def leave(self, holding):
        if self.expected.pop(id(holding), None) is not None:
            self.pool.leave(holding)

    @rule()
    def forget(self):
        self.pool.forget()

    @invariant()
    def no_text_is_lost_or_mixed_up(self):
        for holding, tokens, _ in self.expected.values():
            if not holding.is_lost:
                assert holding.token_ids == tokens
                assert written(holding) == tokens
        for holding in self.pool._held.kept:
            assert written(holding) == holding.token_ids

    @invariant()
    def no_more_is_claimed_than_there_is(self):
        assert self.pool.page_bytes <= self.pool.claimed_bytes <= self.pool.capacity_bytes
        everyone = [*self.pool._held.lent, *self.pool._held.kept]
        assert len({id(holding) for holding in everyone}) == len(everyone)
        assert len({id(holding.state) for holding in everyone}) == len(everyone)
        for holding, _, _ in self.expected.values():
            assert holding.is_lost != (holding in self.pool._held.lent)

    def teardown(self):
        for holding, _, _ in self.expected.values():
            self.pool.give_back(holding, is_kept=False)
        self.pool.forget()
        assert self.pool.page_bytes == 0


Texts.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestTexts = Texts.TestCase


def begin(pool, token_ids, room=CONTEXT):
    holding = pool.borrow((), token_ids, room)
    write(holding, token_ids[len(holding.token_ids) :])
    pool.unpin(holding)
    return holding


def test_a_text_that_begins_like_an_ended_one_goes_on_with_its_state():
    pool = pool_of(1)
    first = begin(pool, [1, 2, 3, 4])
    pool.give_back(first)
    second = pool.borrow((), [1, 2, 3, 9, 9], 10)
    assert second is first
    assert second.token_ids == [1, 2, 3]


def alike(pool, count, shared=4 * SHARED, room=300):
    """Texts that are the same but for the last token."""
    return [begin(pool, [*range(1, shared + 1), 1000 + i], room) for i in range(count)]


def test_a_common_beginning_takes_its_memory_once():
    pool = pool_of(4, WIDE)
    begin(pool, list(range(1, 4 * SHARED + 1)), 300)
    alone, claimed = pool.page_bytes, pool.claimed_bytes
    texts = alike(pool, 8)
    num_strips = 8
    assert pool.page_bytes - alone <= 8 * num_strips * mmap.PAGESIZE, "a page of each head"
    assert pool.claimed_bytes - claimed < 3 * claimed, "a quarter of eight"
    for i, text in enumerate(texts):
        assert written(text) == [*range(1, 4 * SHARED + 1), 1000 + i]


def test_more_texts_have_room_if_they_begin_alike():
    pool = pool_of(1, WIDE)
    assert pool.num_texts(300) == 1
    assert pool.num_texts(300, 280) == len(alike(pool, pool.num_texts(300, 280), 280)) > 4
    assert all(not text.is_lost for text in pool._held.lent)


def test_of_a_beginning_that_several_have_nothing_is_left_when_the_last_has_ended():
    pool = pool_of(4, WIDE)
    first, *others = alike(pool, 3)
    pool.give_back(first, is_kept=False)
    assert [written(text)[-1] for text in others] == [1001, 1002]
    claimed = pool.claimed_bytes
    assert pool.page_bytes <= claimed
    for text in others:
        pool.give_back(text, is_kept=False)
    assert pool.page_bytes == pool.claimed_bytes == 0


def test_a_text_that_is_taken_back_into_what_others_share_writes_to_pages_of_its_own():
    pool = pool_of(4, WIDE)
    texts = alike(pool, 3)
    claimed = pool.claimed_bytes
    for text, length in zip(texts, (SHARED, 2 * SHARED + 3, 3 * SHARED), strict=True):
        assert pool.pin(text, length)
        write(text, [7] * 50)
        pool.unpin(text)
        assert pool.page_bytes <= pool.claimed_bytes
        assert pool.claimed_bytes > claimed, "what they no longer share counts"
        assert written(text) == [*range(1, length + 1), *[7] * 50]
    assert written(texts[2])[SHARED] == SHARED + 1


def test_a_text_that_cannot_have_again_what_it_shared_is_lost_and_waits_like_any_other():
    pool = pool_of(1.4, WIDE)
    first, second = alike(pool, 2, 400, CONTEXT)
    assert pool.pin(first)  # so that it does not make room
    assert not pool.pin(second, 10)
    assert second.is_lost
    assert not first.is_lost
    assert pool.page_bytes <= pool.claimed_bytes


def test_a_text_that_cannot_be_taken_back_is_lost_and_not_wrong(monkeypatch):
    def has_no_addresses(length):
        raise MemoryError

    pool = pool_of(4, WIDE)
    first, second = alike(pool, 2)
    monkeypatch.setattr(second.state, "rewind", has_no_addresses)
    assert not pool.pin(second, SHARED)
    assert second.is_lost
    assert written(first) == [*range(1, 4 * SHARED + 1), 1000]


def test_where_the_system_has_no_file_in_memory_texts_copy(monkeypatch):
    pool = pool_of(4, WIDE)
    monkeypatch.setattr(pool, "_file", None)
    first, second = alike(pool, 2)
    write(first, [5])
    assert written(second) == [*range(1, 4 * SHARED + 1), 1001]
    assert pool.claimed_bytes == first.claim_bytes + second.claim_bytes


def test_texts_with_one_beginning_have_a_copy_each_while_there_is_room():
    pool = pool_of(2)
    shared = list(range(1, 60))
    first = begin(pool, [*shared, *range(100, 200)], 200)
    pool.give_back(first)
    second = begin(pool, [*shared, 7], 100)
    assert second is not first
    assert written(second) == [*shared, 7]
    third = pool.borrow((), [*shared, *range(100, 201)], 300)
    assert third is first, "the copy left the first one whole"
    assert len(third.token_ids) == 59 + 100


def test_of_what_has_ended_the_longest_unused_goes_first():
    pool = pool_of(1.5)
    texts = [begin(pool, [i] * 100, 100) for i in (1, 2, 3)]
    for text in texts:
        pool.give_back(text)
    begin(pool, [4] * 10, 300)
    assert [text.is_lost for text in texts] == [True, False, False]


def test_a_thread_does_not_wait_for_itself():
    pool = pool_of(1)
    first = begin(pool, [1, 2])
    second = begin(pool, [3, 4])
    assert first.is_lost
    assert not second.is_lost
    assert not pool.pin(first)


def test_another_threads_text_is_waited_for_until_it_pauses(monkeypatch):
    pool = pool_of(1)
    first = begin(pool, [1, 2])
    first.thread = -1
    first.used_s = float("inf")  # never pauses
    asked = iter([False, False, True])
    monkeypatch.setattr(state_pool, "PAUSE_S", 0.001)
    with pytest.raises(Cancelled):
        pool.borrow((), [3], CONTEXT, lambda: next(asked))
    assert not first.is_lost
    first.used_s = 0.0  # long ago
    begin(pool, [3])
    assert first.is_lost


def test_a_pinned_text_keeps_its_room(monkeypatch):
    monkeypatch.setattr(state_pool, "PAUSE_S", 0.001)
    pool = pool_of(1)
    first = begin(pool, [1, 2])
    assert pool.pin(first)
    first.thread = -1  # another's: a thread makes no step while it asks for room
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        pool.borrow((), [3], CONTEXT, lambda: next(asked))
    assert not first.is_lost


def test_memory_of_what_a_text_no_longer_needs_goes_back_to_the_system():
    pool = pool_of(1)
    holding = begin(pool, list(range(1, 500)))
    assert pool.pin(holding, 3)
    pool.unpin(holding)
    pool.give_back(holding)
    for keys in (slots.keys for slots in holding.state.layers):
        assert np.array_equal(keys[:, :3, 0], np.broadcast_to([1, 2, 3], keys[:, :3, 0].shape))
        assert not keys[:, -40:].any(), "given back, a page reads as zeros"


def test_common_prefix():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0


def test_memory_of_a_text_that_is_lost_is_free_at_once_whoever_still_refers_to_it():
    pool = pool_of(1)
    ended, pinned, taken = (begin(pool, [i], 20) for i in (1, 2, 3))
    pool.give_back(ended, is_kept=False)
    assert ended.state.num_bytes == 0
    assert pool.pin(pinned)
    pool.give_back(pinned, is_kept=False)
    assert pinned.state.num_bytes > 0, "its step is not over"
    pool.unpin(pinned)
    assert pinned.state.num_bytes == 0
    pool.give_back(taken)
    begin(pool, [4])
    assert taken.state.num_bytes == 0
