"""Every family against transformers: f32 weights, the same logits, in one go, in chunks and step by step."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from helpers.resident import load_resident
from helpers.tiny_models import (
    VARIATIONS,
    VOCAB_SIZE,
    build_model,
    rewrite_as_old_mixtral,
    rewrite_as_stacked,
    write_checkpoint,
)
from helpers.tolerances import F32_RELATIVE, relative

from edgemoe.checkpoint import open_checkpoint

F16_CACHE_RELATIVE = 2e-3  # keys and values rounded to 11 bits: 2^-11 each, amplified by the softmax
TOKENS = np.random.default_rng(7).integers(0, VOCAB_SIZE, 40).astype(np.int32)


def run_chunks(spec, decoder, tokens, sizes, kv_format="f32"):
    cache = spec.new_state(len(tokens), kv_format)
    hidden = [decoder.forward(chunk, cache) for chunk in np.split(tokens, np.cumsum(sizes)[:-1])]
    return decoder.head(np.concatenate(hidden))


@pytest.fixture(scope="module", params=sorted(VARIATIONS))
def case(request, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), request.param)
    with torch.no_grad():
        expected = build_model(request.param)(torch.tensor(TOKENS[None].astype(np.int64))).logits[0].numpy()
    source = open_checkpoint(folder)
    spec, decoder = load_resident(source)
    source.close()
    return spec, decoder, expected


def test_prefill_matches_transformers(case):
    spec, decoder, expected = case
    assert relative(run_chunks(spec, decoder, TOKENS, [len(TOKENS)]), expected) < F32_RELATIVE


def test_chunks_and_steps_have_the_same_bits(case):
    spec, decoder, _ = case
    whole = run_chunks(spec, decoder, TOKENS, [len(TOKENS)])
    assert np.array_equal(run_chunks(spec, decoder, TOKENS, [13, 1, 20, 6]), whole)
    assert np.array_equal(run_chunks(spec, decoder, TOKENS, [1] * len(TOKENS)), whole)


def test_f16_cache_stays_close(case):
    spec, decoder, expected = case
    logits = run_chunks(spec, decoder, TOKENS, [20, 20], "f16")
    # The median over positions: where two experts nearly tie, rounding picks the other for one token.
    errors = [relative(a, b) for a, b in zip(logits, expected, strict=True)]
    assert np.median(errors) < F16_CACHE_RELATIVE


def test_dynamic_rope_beyond_the_trained_context_matches_step_by_step(tmp_path):
    folder = write_checkpoint(tmp_path, "qwen3-dynamic")
    tokens = np.random.default_rng(3).integers(0, VOCAB_SIZE, 150).astype(np.int32)
    model, past, expected = build_model("qwen3-dynamic"), None, []
    with torch.no_grad():
        for token in tokens:
            out = model(torch.tensor([[int(token)]]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            expected.append(out.logits[0, 0].numpy())
    spec, decoder = load_resident(open_checkpoint(folder))
    assert relative(run_chunks(spec, decoder, tokens, [100, 50]), np.stack(expected)) < F32_RELATIVE


@pytest.mark.parametrize(("variation", "num_experts"), [("mixtral", 4), ("qwen2", 8)])
def test_other_names_give_the_same_model(tmp_path, variation, num_experts):
    folder = write_checkpoint(tmp_path, variation)
    spec, decoder = load_resident(open_checkpoint(folder))
    expected = run_chunks(spec, decoder, TOKENS, [40])
    if variation == "mixtral":
        rewrite_as_old_mixtral(folder)
        assert np.array_equal(run_chunks(*load_resident(open_checkpoint(folder)), TOKENS, [40]), expected)
    rewrite_as_stacked(folder, num_experts, len(spec.layers))
    assert np.array_equal(run_chunks(*load_resident(open_checkpoint(folder)), TOKENS, [40]), expected)
