"""Rehearsing the next layer while experts are waited for changes nothing, and what it says mostly holds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.resident import resident_parts
from helpers.tiny_models import FAMILIES, VOCAB_SIZE, write_checkpoint

from edgemoe.checkpoint import open_checkpoint
from edgemoe.cli.demo import demo_store
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.models import Decoder, KVCache
from edgemoe.store import Device, open_store

STORY = (
    "Once upon a time there was a little fox who lived near the river. Every morning the fox went down to the"
    " water and looked for fish. One day a small bird with a broken wing sat on a stone and cried. The fox"
    " was hungry, but the bird looked so sad that it sat down beside it. What happened to you? asked the fox."
    " The wind blew me out of my nest, said the bird, and now I cannot fly home to my mother. So the fox took"
    " the bird on its back and walked through the wood until they came to a tall tree with a nest in it."
)
TOKENS = np.random.default_rng(5).integers(3, VOCAB_SIZE, 12).astype(np.int32)


class Rehearses:
    """Runs experts in memory. Before a layer returns, those that follow are rehearsed: as all experts are
    there, routers choose then what they will choose.
    """

    def __init__(self, runner, layers):
        self.runner = runner
        self.layers = layers  # those with experts
        self.rehearsed = []  # what the routers of the layers to come chose in the last rehearsal
        self.agreed = []

    def run(self, layer, x, expert_ids, weights, rehearse=None):
        if self.rehearsed:
            seen, scores, ids, given = self.rehearsed.pop(0)
            best = np.argsort(-scores[0], kind="stable")[: expert_ids.shape[1]]
            # Not to the last bit: a shared expert's output is added in another order.
            self.agreed.append(np.allclose(seen, x, atol=1e-5) and np.allclose(given, weights, atol=1e-5))
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


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def parts(request, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    return resident_parts(open_checkpoint(folder))


def test_with_all_experts_there_what_follows_is_foretold_exactly(parts):
    spec, weights, experts = parts
    rehearses = Rehearses(experts, list(spec.moe_layers))
    logits = []
    for runner in (experts, rehearses):
        decoder, cache = Decoder(spec, weights, runner), KVCache(spec, len(TOKENS), "f16")
        logits.append([decoder.head(decoder.forward(TOKENS[i : i + 1], cache)) for i in range(len(TOKENS))])
    assert len(rehearses.agreed) == 2 * len(TOKENS) * (len(spec.moe_layers) - 1)
    assert all(rehearses.agreed)
    assert np.array_equal(*logits)


def test_rehearsals_hold_more_often_than_forecasts():
    """Of a trained model, on storage that has to be waited for."""
    slow = Device(bytes_per_s=1e9, latency_s=2e-3)
    with demo_store() as path:
        store = open_store(path)
        num_bytes = sum(entry.num_bytes for entry in store.manifest.experts.values())
        options = LoadOptions(context=256, cache_bytes=num_bytes // 2, predictor="gate", device=slow)
        engine = load_engine(store, options)
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
