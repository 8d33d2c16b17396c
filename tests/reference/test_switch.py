"""Switch Transformers against transformers: encoder, decoder, cached steps, padding, capacity, positions."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from helpers.resident import resident_parts
from helpers.tiny_models import VOCAB_SIZE
from helpers.tiny_switch import PAD, VARIATIONS, build_switch, write_switch
from helpers.tolerances import F32_RELATIVE, relative

from edgemoe.checkpoint import open_checkpoint
from edgemoe.errors import UnsupportedModelError
from edgemoe.models import Decoder, Encoder, read_spec
from edgemoe.models.moe import within_capacity
from edgemoe.models.positions import buckets
from edgemoe.models.spec import PositionBiasSpec

RNG = np.random.default_rng(7)
PROMPT = RNG.integers(3, VOCAB_SIZE, 37).astype(np.int32)
ANSWER = np.concatenate([[PAD], RNG.integers(3, VOCAB_SIZE, 21)]).astype(np.int32)


def batch(tokens):
    return torch.tensor(np.asarray(tokens)[None].astype(np.int64))


@pytest.fixture(scope="module", params=sorted(VARIATIONS))
def case(request, tmp_path_factory):
    folder = write_switch(tmp_path_factory.mktemp("checkpoint"), request.param)
    source = open_checkpoint(folder)
    spec, weights, experts = resident_parts(source)
    source.close()
    reference = build_switch(request.param)
    return spec, Encoder(spec, weights, experts), Decoder(spec, weights, experts), reference


@torch.no_grad()
def step_by_step(reference, answer):
    """Logits of generating: a decoder's pass over a whole answer would drop tokens of full experts."""
    states = reference.encoder(input_ids=batch(PROMPT))
    past, rows = None, []
    for token in answer:
        out = reference(
            encoder_outputs=states, decoder_input_ids=batch([token]), past_key_values=past, use_cache=True
        )
        past = out.past_key_values
        rows.append(out.logits[0, 0].numpy())
    return np.stack(rows)


def answer_logits(spec, encoder, decoder, sizes):
    cache = spec.new_state(64, "f32")
    decoder.begin(encoder.forward(PROMPT), cache)
    hidden = [decoder.forward(chunk, cache) for chunk in np.split(ANSWER, np.cumsum(sizes)[:-1])]
    return decoder.head(np.concatenate(hidden))


def test_the_encoder_matches(case):
    spec, encoder, _, reference = case
    with torch.no_grad():
        expected = reference.encoder(input_ids=batch(PROMPT)).last_hidden_state[0].numpy()
    assert relative(encoder.forward(PROMPT)[:, : spec.hidden_size], expected) < F32_RELATIVE


def test_the_decoder_matches_cached_steps(case):
    spec, encoder, decoder, reference = case
    ours = answer_logits(spec, encoder, decoder, [len(ANSWER)])
    assert relative(ours, step_by_step(reference, ANSWER)) < F32_RELATIVE


def test_the_decoder_matches_one_pass_where_no_expert_is_full(case):
    spec, encoder, decoder, reference = case
    reference.config.expert_capacity = 64
    for module in reference.decoder.modules():
        if hasattr(module, "expert_capacity"):
            module.expert_capacity = 64
    with torch.no_grad():
        expected = reference(input_ids=batch(PROMPT), decoder_input_ids=batch(ANSWER)).logits[0].numpy()
    assert relative(answer_logits(spec, encoder, decoder, [len(ANSWER)]), expected) < F32_RELATIVE


def test_chunks_and_steps_have_the_same_bits(case):
    spec, encoder, decoder, _ = case
    whole = answer_logits(spec, encoder, decoder, [len(ANSWER)])
    assert np.array_equal(answer_logits(spec, encoder, decoder, [5, 1, 9, 7]), whole)
    assert np.array_equal(answer_logits(spec, encoder, decoder, [1] * len(ANSWER)), whole)


def test_the_cache_of_keys_counts_those_of_the_encoder(case):
    spec = case[0]
    state = spec.new_state(17, "f16")
    slots = (*state.layers, *state.cross)
    assert len(slots) == 2 * len(spec.decoder_layers)
    heads = [head for s in slots for array in (s.keys, s.values) for head in array]
    pages = sum(-(-head.nbytes // mmap.PAGESIZE) for head in heads)
    assert spec.state_num_bytes(17, "f16") == pages * mmap.PAGESIZE


def test_padding_in_a_batch_changes_nothing(case):
    """Transformers runs the prompt beside a longer one, padded and masked; we run it alone."""
    spec, encoder, _, reference = case
    longer = RNG.integers(3, VOCAB_SIZE, 50)
    ids, mask = np.full((2, 50), PAD), np.ones((2, 50))
    ids[0, : len(PROMPT)], ids[1], mask[0, len(PROMPT) :] = PROMPT, longer, 0
    with torch.no_grad():
        states = reference.encoder(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).last_hidden_state
    ours = encoder.forward(PROMPT)[:, : spec.hidden_size]
    assert relative(ours, states[0, : len(PROMPT)].numpy()) < F32_RELATIVE


def test_tokens_of_a_full_expert_pass_it_by():
    ids = np.array([[1], [0], [1], [1], [0]], np.int32)
    assert within_capacity(ids, 2, 2).tolist() == [[True], [True], [True], [False], [True]]
    # The variation with a small capacity must really drop some, or the tests above prove nothing.
    spec = read_spec(build_switch("capacity").config.to_dict())
    assert {spec.moe(layer).router.capacity for layer in spec.moe_layers} == {2, 0}


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20), (64, 500)])
@pytest.mark.parametrize("is_causal", [True, False])
def test_buckets_of_distances_are_those_of_transformers(num_buckets, max_distance, is_causal):
    from transformers.models.switch_transformers import modeling_switch_transformers as theirs

    distances = np.arange(-3000, 3000)
    expected = theirs.SwitchTransformersAttention._relative_position_bucket(
        torch.tensor(distances), not is_causal, num_buckets, max_distance
    )
    ours = buckets(distances, PositionBiasSpec(num_buckets, max_distance), is_causal)
    assert np.array_equal(ours, expected.numpy())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("router_dtype", "bfloat16"),
        ("is_gated_act", True),
        ("dense_act_fn", "mish"),
        ("expert_choice", "hash"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(key, value):
    config = {**build_switch("base").config.to_dict(), key: value}
    with pytest.raises(UnsupportedModelError, match=key):
        read_spec(config)
