"""Rehearsing the next layers while experts are waited for changes nothing, and what it says mostly holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.resident import resident_parts
from helpers.tiny_models import FAMILIES, VOCAB_SIZE, write_checkpoint
from helpers.tiny_switch import write_switch

from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.models import Decoder
from edgemoe.quant import BitPlan
from edgemoe.store import Device, open_store
from edgemoe.workflows.demo import demo_store

STORY = (
    "Once upon a time there was a little fox who lived near the river. Every morning the fox went down to the"
    " water and looked for fish. One day a small bird with a broken wing sat on a stone and cried. The fox"
    " was hungry, but the bird looked so sad that it sat down beside it. What happened to you? asked the fox."
    " The wind blew me out of my nest, said the bird, and now I cannot fly home to my mother. So the fox took"
    " the bird on its back and walked through the wood until they came to a tall tree with a nest in it."
)
TOKENS = np.random.default_rng(5).integers(3, VOCAB_SIZE, 12).astype(np.int32)
# Besides the families: dense layers between the sparse ones and before them, windows, shared experts.
VARIATIONS = (*FAMILIES, "qwen3-dense-layers", "qwen3-sparse-step", "qwen2-window", "qwen2-normed-dense")
SLOW = Device(bytes_per_s=1e9, latency_s=2e-3)  # storage that has to be waited for


class Rehearses:
    """Runs experts in memory. Before a layer returns, those that follow are rehearsed: as all experts are
    there, routers choose then what they will choose.
    """

    def __init__(self, runner, layers):
        self.runner = runner
        self.layers = layers  # those with experts
        self.rehearsed = []  # what the routers of the layers to come chose in the last rehearsal
        self.agreed = []

    def run(self, layer, x, expert_ids, weights, rehearse=None, seen=None):
        if self.rehearsed:
            known, scores, ids, given = self.rehearsed.pop(0)
            best = np.argsort(-scores[0], kind="stable")[: expert_ids.shape[1]]
            # Not to the last bit: a shared expert's output is added in another order.
            self.agreed.append(np.allclose(known, x, atol=1e-5) and np.allclose(given, weights, atol=1e-5))
            self.agreed.append(sorted(best) == sorted(expert_ids[0]) and np.array_equal(ids, expert_ids))
        y = self.runner.run(layer, x, expert_ids, weights)
        if not self.rehearsed:
            added = y
            for following in self.layers[self.layers.index(layer) + 1 :]:
                seen, _, ids, given = found = rehearse(added)
                self.rehearsed.append(found)
                added = self.runner.run(following, seen, ids, given)
            assert rehearse(added) is None
        return y


@pytest.fixture(scope="module", params=sorted(VARIATIONS))
def checkpoint(request, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp(request.param) / "checkpoint", request.param)


@pytest.fixture(scope="module")
def parts(checkpoint):
    return resident_parts(open_checkpoint(checkpoint))


def load_slow(path, cache_share, **options):
    # Computing takes no time by this clock, so that a busy machine leaves time to rehearse too.
    ticks = itertools.count()
    options["clock"] = lambda: next(ticks) * 1e-7
    store = open_store(path)
    sizes = [entry.num_bytes for entry in store.manifest.experts.values()]
    cache_bytes = max(*sizes, int(cache_share * sum(sizes)))
    return load_engine(store, LoadOptions(cache_bytes=cache_bytes, device=SLOW, **options))


def num_rehearsals(experts):
    return sum(record.num_forecasts for d in (1, 2, 3) for record in experts.forecast_records(d))


def test_with_all_experts_there_what_follows_is_foretold_exactly(parts):
    spec, weights, experts = parts
    rehearses = Rehearses(experts, list(spec.moe_layers))
    logits = []
    for runner in (experts, rehearses):
        decoder, cache = Decoder(spec, weights, runner), spec.new_state(len(TOKENS), "f16")
        logits.append([decoder.head(decoder.forward(TOKENS[i : i + 1], cache)) for i in range(len(TOKENS))])
    assert len(rehearses.agreed) == 2 * len(TOKENS) * (len(spec.moe_layers) - 1)
    assert all(rehearses.agreed)
    assert np.array_equal(*logits)


def test_streamed_with_rehearsals_equals_all_in_memory(checkpoint, parts, tmp_path):
    spec, weights, experts = parts
    decoder, cache = Decoder(spec, weights, experts), spec.new_state(len(TOKENS), "f16")
    expected = [decoder.head(decoder.forward(TOKENS[i : i + 1], cache))[0] for i in range(len(TOKENS))]
    convert(checkpoint, tmp_path / "store", BitPlan.uniform("f32", "f32"))
    engine = load_slow(tmp_path / "store", 0.5, context=32, predictor="gate")
    try:
        engine.session.prefill(TOKENS[:1].tolist())
        for token, logits in zip(TOKENS[1:].tolist(), expected[1:], strict=True):
            assert np.array_equal(engine.session.step(token), logits)
        assert (num_rehearsals(engine.experts) > 0) == (len(spec.moe_layers) > 1)
    finally:
        engine.experts.close()


def test_a_decoder_with_an_encoder_rehearses_too(tmp_path):
    convert(write_switch(tmp_path / "switch", "base"), tmp_path / "store", BitPlan.uniform("q8", "q8"))
    answers = []
    for cache_share, predictor in ((1, "none"), (0.3, "gate")):
        engine = load_slow(tmp_path / "store", cache_share, context=32, predictor=predictor)
        try:
            logits = [engine.session.prefill(TOKENS.tolist())]
            logits += [engine.session.step(token) for token in TOKENS.tolist()]
            answers.append(np.array(logits))
            assert (num_rehearsals(engine.experts) > 0) == (predictor == "gate")
        finally:
            engine.experts.close()
    assert np.array_equal(*answers)


def test_what_a_rehearsal_raises_ends_the_layer_and_nothing_else():
    seen = []

    def fails(added):
        seen.append(added)
        raise RuntimeError("no rehearsal today")

    with demo_store() as path:
        engine = load_slow(path, 0.25, context=32, predictor="gate")
        try:
            width = engine.spec.width
            x = np.random.default_rng(3).normal(size=(1, width)).astype(np.float32)
            *layers, last = engine.spec.moe_layers
            ids, weights = np.arange(4, dtype=np.int32)[None], np.full((1, 4), 0.25, np.float32)

            def run_until_one_has_time():
                for layer in layers:
                    engine.experts.run(layer, x, ids, weights, fails)

            with pytest.raises(RuntimeError, match="no rehearsal today"):
                run_until_one_has_time()
            assert seen[0].shape == (1, width)
            assert not seen[0].any(), "no expert was there yet"
            assert engine.experts.run(last, x, ids, weights).any()
        finally:
            engine.experts.close()


def test_rehearsals_hold_more_often_than_forecasts():
    """Of a trained model, on storage that has to be waited for."""
    with demo_store() as path:
        engine = load_slow(path, 0.5, context=256, predictor="gate")
        try:
            tokens = engine.tokenizer.encode(STORY)
            engine.session.prefill(tokens[:1])
            for token in tokens[1:120]:
                engine.session.step(token)
            foretold, rehearsed, *_ = (engine.experts.forecast_records(d) for d in range(4))
        finally:
            engine.experts.close()
    top_k = len(foretold[1].num_chosen) // 2
    assert foretold[0].num_forecasts == rehearsed[0].num_forecasts == 0  # nothing comes before it
    for before, better in zip(foretold[1:], rehearsed[1:], strict=True):
        assert 10 <= better.num_forecasts <= before.num_forecasts
        assert better.recall(top_k) > before.recall(top_k)
        assert better.recall(2 * top_k) >= better.recall(top_k)
