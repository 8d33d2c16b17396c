"""Texts of models whose states cannot go back: taken back, shared, failed half-way, and still right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.models import Segment
from edgemoe.models.layer_state import MAX_TENTATIVE_ROWS
from edgemoe.models.mixers.recurrent_state import MAX_COPIES, RecurrentState
from edgemoe.quant import BitPlan
from edgemoe.store import open_store

TOKENS = np.random.default_rng(2).integers(3, VOCAB_SIZE, 60).astype(np.int32)


@pytest.fixture(scope="module", params=["qwen3.5", "lfm2"])
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("recurrent")
    write_checkpoint(place / "checkpoint", request.param)
    convert(place / "checkpoint", place / "store", BitPlan.uniform("q4", "q8"))
    return place


@pytest.fixture(scope="module")
def model(folder):
    return load_resident(open_checkpoint(folder / "checkpoint"))


@settings(max_examples=25, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.integers(1, 16), st.booleans(), st.booleans(), st.integers(0, 60)),
        min_size=1,
        max_size=6,
    )
)
def test_a_text_taken_back_goes_on_as_if_it_had_never_been_longer(model, moves):
    spec, decoder = model
    state, fresh = spec.new_state(len(TOKENS), "f32"), spec.new_state(len(TOKENS), "f32")
    expected = decoder.forward(TOKENS, fresh)
    for count, is_tentative, keeps, back in moves:
        start, stop = state.length, min(len(TOKENS), state.length + count)
        if start < stop:
            segment = Segment(0, stop - start, state, is_tentative)
            assert np.array_equal(decoder.step(TOKENS[start:stop], [segment]), expected[start:stop])
        if keeps:
            state.keep()
        reached = state.rewind(back)
        assert reached == state.length <= max(back, 0)
        if is_tentative and not keeps and start <= back <= stop:
            assert reached == back, "to any row that was tentative"


def test_what_is_tentative_can_be_copied_and_stored(model):
    spec, decoder = model
    expected = decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32"))
    for length in (22, 30):
        first, second, third = (spec.new_state(len(TOKENS), "f32") for _ in range(3))
        decoder.forward(TOKENS[:20], first)
        decoder.step(TOKENS[20:30], [Segment(0, 10, first, is_tentative=True)])
        assert second.copy_from(first, length) == length
        assert first.rewind(length) == length
        third.resume(length, 0)
        for to, piece in zip(third.pieces(), first.pieces(), strict=True):
            to[...] = piece
        for state in (first, second, third):
            assert np.array_equal(decoder.forward(TOKENS[length:], state), expected[length:])


def test_a_copy_goes_its_own_way(model):
    spec, decoder = model
    first, second = (spec.new_state(len(TOKENS), "f32") for _ in range(2))
    expected = decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32"))
    decoder.forward(TOKENS[:20], first)
    first.keep()
    decoder.forward(TOKENS[20:30], first)
    assert second.copy_from(first, 25) == 20, "as far as a copy was made"
    assert np.array_equal(decoder.forward(TOKENS[30:], first), expected[30:])
    assert np.array_equal(decoder.forward(TOKENS[20:], second), expected[20:])


def test_the_plan_counts_what_a_text_takes(model):
    spec, decoder = model
    state, fresh = spec.new_state(len(TOKENS), "f32"), spec.new_state(len(TOKENS), "f32")
    for start in range(0, 60, 10):
        decoder.forward(TOKENS[start : start + 10], state)
        state.keep()
    recurrent = [layer for layer in state.layers if isinstance(layer, RecurrentState)]
    held = sum(a.nbytes for layer in recurrent for a in layer.arrays.values())
    held += sum(a.nbytes for layer in recurrent for copy in layer._copies.values() for a in copy.values())
    decoder.step(TOKENS[:MAX_TENTATIVE_ROWS], [Segment(0, MAX_TENTATIVE_ROWS, fresh, is_tentative=True)])
    held += sum(layer._recorded.record.nbytes for layer in fresh.layers if isinstance(layer, RecurrentState))
    assert held == sum(layer.num_bytes for layer in recurrent)
    assert all(len(layer._copies) == MAX_COPIES for layer in recurrent)
    assert sum(layer.num_bytes for layer in recurrent) <= spec.state_num_bytes(len(TOKENS), "f32")


def test_the_next_turn_of_a_chat_reads_what_is_new_alone(folder):
    first, answer, more = TOKENS[:30].tolist(), TOKENS[30:40].tolist(), TOKENS[40:50].tolist()
    with edgemoe.load(folder / "store", "4GiB", context=128) as model:
        alone = model.generate([*first, *more], max_tokens=6)
    with edgemoe.load(folder / "store", "4GiB", context=128) as model:
        model.generate(first, max_tokens=len(answer))
        engine = model.engine
        text, _ = engine.session.open([*first, *more], 6)
        text.read([*first, *more])
        assert text.num_reused == len(first), "the prompt's end was kept"
        text.close()
        assert model.generate([*first, *more], max_tokens=6).token_ids == alone.token_ids


def test_a_step_that_fails_half_way_leaves_the_text_right(folder, monkeypatch):
    prompt = TOKENS[:12].tolist()
    with edgemoe.load(folder / "store", "4GiB", context=128) as model:
        expected = model.generate(prompt, max_tokens=8).token_ids
    engine = load_engine(open_store(folder / "store"), LoadOptions(budget_bytes=4 << 30, context=128))
    try:
        session, run, seen = engine.session, engine.experts.run, []
        logits = session.prefill(prompt)

        def fails_once(layer, *arguments):
            seen.append(layer)
            if len(seen) == 2:
                raise RuntimeError("in the middle of a step")
            return run(layer, *arguments)

        monkeypatch.setattr(engine.experts, "run", fails_once)
        with pytest.raises(RuntimeError, match="in the middle"):
            session.step(int(np.argmax(logits)))
        tokens = []
        for _ in range(8):
            tokens.append(int(np.argmax(logits)))
            logits = session.step(tokens[-1])
        assert tokens == expected
    finally:
        engine.experts.close()
