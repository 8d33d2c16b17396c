"""What a text keeps in every layer: windows move their slots, and a text goes back as far as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

from edgemoe.checkpoint import open_checkpoint
from edgemoe.models.layer_state import Slots, StateSize
from edgemoe.models.state import SequenceState

WINDOW, ROWS = 7, 4
TOKENS = np.random.default_rng(5).integers(0, VOCAB_SIZE, 60).astype(np.int32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("window"), "qwen3-window")
    return load_resident(open_checkpoint(folder))


def new_state(spec, max_rows):
    size = StateSize(len(TOKENS), "f32", max_rows)
    return SequenceState([layer.mixer.new_state(size) for layer in spec.layers], [], len(TOKENS))


def run(decoder, state, tokens):
    return [decoder.forward(tokens[i : i + ROWS], state) for i in range(0, len(tokens), ROWS)]


def test_a_window_has_slots_for_itself_and_one_call():
    size = StateSize(1000, "f16", ROWS)
    assert Slots(2, 8, size, WINDOW).keys.shape == (2, WINDOW + ROWS, 8)
    assert Slots(2, 8, size).keys.shape == (2, 1000, 8)
    assert Slots(2, 8, StateSize(9, "f16", ROWS), WINDOW).keys.shape == (2, 9, 8)


def test_few_slots_of_a_window_give_the_bits_of_many(model):
    spec, decoder = model
    few, many = new_state(spec, ROWS), spec.new_state(len(TOKENS), "f32")
    assert few.num_bytes < many.num_bytes
    assert np.array_equal(run(decoder, few, TOKENS), run(decoder, many, TOKENS))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(1, 25), st.integers(0, 60)), min_size=1, max_size=5))
def test_a_text_taken_back_goes_on_as_if_it_had_never_been_longer(model, cuts):
    spec, decoder = model
    state = new_state(spec, ROWS)
    for count, back in cuts:
        run(decoder, state, TOKENS[state.length : min(len(TOKENS), state.length + count)])
        wanted = min(back, state.length)
        reached = state.rewind(back)
        assert reached == state.length <= wanted
        assert reached == wanted or reached == 0
    fresh = spec.new_state(len(TOKENS), "f32")
    expected = decoder.forward(TOKENS, fresh)
    if state.length < len(TOKENS):
        length = state.length
        assert np.array_equal(np.concatenate(run(decoder, state, TOKENS[length:])), expected[length:])
