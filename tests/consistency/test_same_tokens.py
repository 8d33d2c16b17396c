"""Streaming never changes a token: any budget, thread count and reader gives what the resident run gives."""

from __future__ import annotations

import errno
import shutil
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.drafters import check_drafts_change_nothing
from helpers.resident import load_resident
from helpers.tiny_models import EVERY_FAMILY, FAMILIES, VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.calib.routing import fit_routing
from edgemoe.calib.trace import record_trace
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.engine.storage import StorageSpeed
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.errors import BudgetError, ExpertReadError
from edgemoe.experts import FORECAST, POLICIES, save_fitted
from edgemoe.models import read_spec
from edgemoe.native import READ_METHODS
from edgemoe.quant import BitPlan
from edgemoe.store import MemoryReader, open_store

CONTEXT = 96
PROMPT = np.random.default_rng(11).integers(3, VOCAB_SIZE, 50).tolist()
ROOM = 4 << 20  # what the test process may grow by between two loads
GREEDY = {"max_tokens": 24}
SEEDED = {"max_tokens": 24, "temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.01,
          "repetition_penalty": 1.1, "seed": 3}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = write_checkpoint(folder / "checkpoint", request.param)
    convert(checkpoint, folder / "q4", BitPlan.uniform("q4", "q8"))
    convert(checkpoint, folder / "f32", BitPlan.uniform("f32", "f32"))
    return folder


def slots_to_try(path):
    """A cache of one expert, of a quarter, of half, and of all of them, in bytes."""
    entries = open_store(path).manifest.experts.values()
    one = max(entry.num_bytes for entry in entries)
    return [one, one * len(entries) // 4, one * len(entries) // 2, one * len(entries)]


def smallest_budget(path):
    with pytest.raises(BudgetError) as caught:
        edgemoe.load(path, "1MiB", context=CONTEXT)
    return caught.value.smallest_num_bytes


def load(path, cache=None, memory="4GiB", **options):
    return edgemoe.load(path, memory, cache=cache, context=CONTEXT, **options)


def test_same_tokens_for_every_budget_and_thread_count(family):
    results = []
    settings = [{"cache": cache} for cache in slots_to_try(family / "q4")]
    settings.append({"memory": smallest_budget(family / "q4") + ROOM, "cache": settings[1]["cache"]})
    for setting in settings:
        for num_threads in (1, 2):
            with load(family / "q4", num_threads=num_threads, **setting) as model:
                answers = [model.generate(PROMPT, **options).token_ids for options in (GREEDY, SEEDED)]
                memory = model.memory
                results.append((memory.expert_cache_bytes, memory.chunk_size, answers, model.logits(PROMPT)))
    assert len({cache for cache, *_ in results}) == 4
    assert len({chunk for _, chunk, *_ in results}) > 1, "the budgets did not differ in chunks"
    _, _, first_answers, first_logits = results[0]
    for _, _, answers, logits in results[1:]:
        assert answers == first_answers
        assert np.array_equal(logits, first_logits)


@pytest.mark.parametrize(
    "options",
    [*({"reader": reader} for reader in READ_METHODS), {"verify": "always"}, {"verify": "never"}],
)
def test_same_tokens_for_every_reader(family, options):
    few = slots_to_try(family / "q4")[1]
    with load(family / "q4", few) as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    with load(family / "q4", few, **options) as model:
        assert model.generate(PROMPT, **GREEDY).token_ids == expected


def test_streamed_equals_the_decoder_without_a_store(family):
    source = open_checkpoint(family / "checkpoint")
    spec, decoder = load_resident(source)
    cache = spec.new_state(CONTEXT, "f16")
    expected = decoder.head(decoder.forward(np.array(PROMPT, np.int32), cache))
    with load(family / "f32", slots_to_try(family / "f32")[0]) as model:
        assert not model.memory.is_resident
        assert np.array_equal(model.logits(PROMPT), expected)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_every_family_streams_what_it_computes_in_memory(tmp_path, name):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", name)
    convert(checkpoint, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    answers = []
    for cache in (slots_to_try(tmp_path / "store")[0], None):
        with load(tmp_path / "store", cache, predictor="gate") as model:
            answers.append((model.generate(PROMPT, **GREEDY).token_ids, model.logits(PROMPT).tolist()))
            if cache is not None:
                check_drafts_change_nothing(model, PROMPT, **SEEDED)
            assert model.memory.is_resident == (cache is None)
    assert answers[0] == answers[1]


def test_generating_and_scoring_agree(family):
    """The cache of keys and values holds what one pass over the whole text computes."""
    with load(family / "q4", slots_to_try(family / "q4")[1]) as model:
        answer = model.generate(PROMPT, **GREEDY).token_ids
        logits = model.logits(PROMPT + answer)
    assert logits[len(PROMPT) - 1 : -1].argmax(axis=1).tolist() == answer


def test_reusing_a_common_beginning_changes_nothing(family):
    with load(family / "q4") as model:
        model.generate([*PROMPT[:30], 5, 6, 7], **GREEDY)
        reused = model.generate(PROMPT, **GREEDY)
    with load(family / "q4") as model:
        assert model.generate(PROMPT, **GREEDY).token_ids == reused.token_ids


def memory_reader_options(path, cache_share, **options):
    """A store read from memory, and options whose cache holds this share of its experts."""
    store = open_store(path)
    contents = [(path / file).read_bytes() for file in store.expert_files]
    sizes = [entry.num_bytes for entry in store.manifest.experts.values()]
    cache_bytes = max(max(sizes), int(cache_share * sum(sizes)))
    return store, contents, LoadOptions(4 << 30, CONTEXT, cache_bytes=cache_bytes, **options)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("predictor", ["none", "gate"])
def test_reads_that_arrive_late_and_out_of_order_change_nothing(family, policy, predictor):
    with load(family / "q4") as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    for share in (0.0, 0.3, 0.6):
        store, contents, options = memory_reader_options(
            family / "q4", share, policy=policy, predictor=predictor
        )
        store.open_expert_reader = lambda *_, c=contents: MemoryReader(c, latency_s=0.0002, seed=9)
        with edgemoe.Model(load_engine(store, options)) as model:
            assert model.generate(PROMPT, **GREEDY).token_ids == expected


@pytest.fixture(scope="module")
def fitted_store(family):
    """The store of 4 bits, taught by a text of its own."""
    path = shutil.copytree(family / "q4", family / "fitted")
    text = np.random.default_rng(12).integers(3, VOCAB_SIZE, 4 * CONTEXT).tolist()
    with load(path, predictor="none") as model:
        trace = record_trace(model.engine, {"text": text}, family / "trace")
    store = open_store(path)
    spec = read_spec(store.config)
    save_fitted(store, fit_routing(trace, spec, read_dense_weights(spec, store))[0])
    return path


@pytest.mark.parametrize("predictor", ["none", "table", "gate-fitted", "hybrid"])
def test_what_was_learnt_changes_no_token(family, fitted_store, predictor):
    """The policy that forecasts with each predictor, at several budgets, its reads late and out of order."""
    with load(family / "q4") as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    for share in (0.0, 0.3, 0.6):
        store, contents, options = memory_reader_options(fitted_store, share, predictor=predictor)
        assert options.policy == FORECAST
        store.open_expert_reader = lambda *_, c=contents: MemoryReader(c, latency_s=0.0002, seed=9)
        with edgemoe.Model(load_engine(store, options)) as model:
            assert model.generate(PROMPT, **GREEDY).token_ids == expected
            assert model.engine.experts.cache.statistics.expected.any()


def test_filling_the_cache_amid_an_answer_changes_nothing(fitted_store, monkeypatch):
    """What is being read ahead just then is not read a second time."""
    promising = StorageSpeed(bytes_per_s=1e12, latency_s=0.0, handling_s=0.0)
    monkeypatch.setattr("edgemoe.engine.loading.tune_depth", lambda *_: promising)
    store, contents, options = memory_reader_options(fitted_store, 1.0, predictor="gate-fitted")
    store.open_expert_reader = lambda *_: MemoryReader(contents, latency_s=0.02)
    answers = []
    for is_filled in (False, True):
        with edgemoe.Model(load_engine(store, options)) as model:
            session, experts = model.engine.session, model.engine.experts
            session.prefill(PROMPT[:1])
            if is_filled:
                experts.preload()
            answers.append([session.step(token).tolist() for token in PROMPT[1:9]])
            if is_filled:
                assert len(experts.cache) == len(experts.cache.catalog)
    assert answers[0] == answers[1]


def test_reads_that_fail_now_and_then_change_nothing(family):
    """Every other read of an expert fails: demanded ones are tried again, those ahead are forgotten."""
    with load(family / "q4") as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    store, contents, options = memory_reader_options(family / "q4", 0.4, predictor="gate")
    num_reads = Counter()

    def fault(file, offset):
        num_reads[file, offset] += 1
        return errno.EIO if num_reads[file, offset] % 2 else 0

    store.open_expert_reader = lambda *_: MemoryReader(contents, fault=fault, seed=9)
    with edgemoe.Model(load_engine(store, options)) as model:
        assert model.generate(PROMPT, **GREEDY).token_ids == expected
        assert model.stats().bytes_read > 0


def test_storage_that_fails_for_good_is_named_and_the_model_stays_usable(family):
    store, contents, options = memory_reader_options(family / "q4", 0.4)
    is_broken = [False]

    def fault(*_):
        return errno.EIO if is_broken[0] else 0

    store.open_expert_reader = lambda *_: MemoryReader(contents, fault=fault)
    with edgemoe.Model(load_engine(store, options)) as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
        is_broken[0] = True
        with pytest.raises(ExpertReadError, match=r"layer \d+ expert \d+ at offset \d+ cannot be read"):
            model.generate(PROMPT[::-1], **GREEDY)
        is_broken[0] = False
        assert model.generate(PROMPT, **GREEDY).token_ids == expected
