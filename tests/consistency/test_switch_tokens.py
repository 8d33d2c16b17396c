"""With an encoder too, streaming never changes a token; and its experts are read once, then leave first."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.resident import resident_parts
from helpers.tiny_models import VOCAB_SIZE
from helpers.tiny_switch import write_switch

import edgemoe
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import BudgetError, RequestError
from edgemoe.experts import POLICIES
from edgemoe.models import Decoder, Encoder
from edgemoe.quant import BitPlan
from edgemoe.store import MemoryReader, open_store

CONTEXT = 64
PROMPT = np.random.default_rng(11).integers(3, VOCAB_SIZE, 50).tolist()
ANSWER = [0, *np.random.default_rng(12).integers(3, VOCAB_SIZE, 24).tolist()]
ROOM = 4 << 20  # what the test process may grow by between two loads
# Drawn, because the likeliest token of random weights under a tied head is often the last one again.
SEEDED = {"max_tokens": 24, "temperature": 3.0, "top_k": 40, "top_p": 0.95, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switch")
    checkpoint = write_switch(folder / "checkpoint", "all-sparse")
    convert(checkpoint, folder / "q4", BitPlan.uniform("q4", "q8"))
    convert(checkpoint, folder / "f32", BitPlan.uniform("f32", "f32"))
    return folder


def load(path, cache=None, memory="4GiB", **options):
    return edgemoe.load(path, memory, cache=cache, context=CONTEXT, **options)


def one_expert(path):
    return max(entry.num_bytes for entry in open_store(path).manifest.experts.values())


@pytest.fixture(scope="module")
def expected(folder):
    with load(folder / "q4") as model:
        answer = model.generate(PROMPT, **SEEDED).token_ids
        assert len(set(answer)) > 10, "an answer of one token proves nothing"
        return answer, model.logits(PROMPT, ANSWER)


def test_same_tokens_for_every_budget_and_thread_count(folder, expected):
    one = one_expert(folder / "q4")
    with pytest.raises(BudgetError) as caught:
        load(folder / "q4", memory="1MiB")
    settings = [{"cache": one * count} for count in (1, 5, 20)]
    settings.append({"memory": caught.value.smallest_num_bytes + ROOM, "cache": 5 * one})
    for setting in settings:
        for num_threads in (1, 2):
            with load(folder / "q4", num_threads=num_threads, **setting) as model:
                assert model.generate(PROMPT, **SEEDED).token_ids == expected[0]
                assert np.array_equal(model.logits(PROMPT, ANSWER), expected[1])


@pytest.mark.parametrize("reader", ["direct", "buffered"])
def test_same_tokens_for_every_reader(folder, expected, reader):
    with load(folder / "q4", 6 * one_expert(folder / "q4"), reader=reader) as model:
        assert model.generate(PROMPT, **SEEDED).token_ids == expected[0]


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("predictor", ["none", "gate"])
def test_reads_that_arrive_late_and_out_of_order_change_nothing(folder, expected, policy, predictor):
    path = folder / "q4"
    contents = [(path / file).read_bytes() for file in open_store(path).expert_files]
    for num_experts in (1, 9, 30):
        store = open_store(path)
        store.open_expert_reader = lambda *_: MemoryReader(contents, latency_s=0.0002, seed=9)
        cache_bytes = num_experts * one_expert(path)
        options = LoadOptions(4 << 30, CONTEXT, cache_bytes=cache_bytes, policy=policy, predictor=predictor)
        with edgemoe.Model(load_engine(store, options)) as model:
            assert model.generate(PROMPT, **SEEDED).token_ids == expected[0]


def test_streamed_equals_the_model_without_a_store(folder):
    source = open_checkpoint(folder / "checkpoint")
    spec, weights, experts = resident_parts(source)
    decoder, cache = Decoder(spec, weights, experts), spec.new_state(CONTEXT, "f16")
    decoder.begin(Encoder(spec, weights, experts).forward(np.array(PROMPT, np.int32)), cache)
    logits = decoder.head(decoder.forward(np.array(ANSWER, np.int32), cache))
    with load(folder / "f32", one_expert(folder / "f32")) as model:
        assert np.array_equal(model.logits(PROMPT, ANSWER), logits)


def test_generating_and_scoring_agree(folder):
    with load(folder / "q4", 9 * one_expert(folder / "q4")) as model:
        answer = model.generate(PROMPT, max_tokens=12).token_ids
        logits = model.logits(PROMPT, [model.spec.start_token_id, *answer[:-1]])
    assert logits.argmax(axis=1).tolist() == answer


def test_a_prompt_that_comes_again_is_not_read_again(folder, expected):
    with load(folder / "q4", 9 * one_expert(folder / "q4")) as model:
        model.generate(PROMPT[::-1], **SEEDED)
        assert model.generate(PROMPT, **SEEDED).num_cached_tokens == 0
        again = model.generate(PROMPT, **SEEDED)
        assert again.num_cached_tokens == len(PROMPT)
    assert again.token_ids == expected[0]


class Reads:
    """Counts which experts were missing, layer by layer."""

    def __init__(self):
        self.misses = []

    def layer_runs(self, event):
        self.misses.append((event.position, event.misses))


def test_an_encoder_reads_each_needed_expert_once_and_they_leave_first(folder):
    path = folder / "q4"
    with load(path, 8 * one_expert(path), predictor="none") as model:
        experts, catalog = model.engine.experts, model.engine.experts.cache.catalog
        experts.observer = reads = Reads()
        model.generate(PROMPT, **SEEDED)
        by_encoder = [misses for position, misses in reads.misses if position < catalog.first_step]
        assert len(by_encoder) == catalog.first_step == 4
        assert all(len(misses) == len(set(misses)) > 1 for misses in by_encoder)
        resident = np.flatnonzero(experts.cache.residency.is_resident)
        assert len(resident) == 8
        assert resident.min() >= catalog.span(catalog.first_step).start, "the encoder's are still there"


def test_an_answer_ends_where_the_context_does(folder):
    with edgemoe.load(folder / "q4", "4GiB", context=10) as model:
        generation = model.generate(PROMPT[:10], **SEEDED)
    assert (len(generation.token_ids), generation.finish_reason) == (10, "length")


def test_the_wrong_number_of_texts_is_refused(folder):
    with load(folder / "q4") as model:
        with pytest.raises(RequestError, match="give decoder_token_ids"):
            model.logits(PROMPT)
        with pytest.raises(RequestError, match="do not fit the context of 64"):
            model.generate(PROMPT * 2, **SEEDED)


def test_a_decoder_takes_one_text(tiny_store):
    with load(tiny_store) as model, pytest.raises(RequestError, match="has no encoder: give all tokens"):
        model.logits(PROMPT, ANSWER)
