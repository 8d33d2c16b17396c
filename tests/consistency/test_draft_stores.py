"""Answers that a small store drafts have the tokens of those without, and both models share one budget."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine.drafting import Room, model_drafter
from edgemoe.engine.drafting.model_drafter import kind_of, likeliest
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import BudgetError, ExpertReadError, RequestError
from edgemoe.quant import BitPlan
from edgemoe.store import open_store

CONTEXT = 96
PROMPT = np.random.default_rng(5).integers(3, VOCAB_SIZE, 30).tolist()
GREEDY = {"max_tokens": 28, "logprobs": 2}
SEEDED = {"max_tokens": 28, "temperature": 0.9, "top_k": 5, "seed": 3, "repetition_penalty": 1.2}
# Small models whose state goes back, goes back as far as its windows reach, or only to copies of itself.
SMALL = ("qwen3", "qwen3-window", "qwen3.5", "nemotron")


def make_store(folder: Path, kind: str, bits: str = "q4", **changes: object) -> Path:
    convert(
        write_checkpoint(folder / "checkpoint", kind, **changes),
        folder / "store",
        BitPlan.uniform(bits, "q8"),
    )
    return folder / "store"


@pytest.fixture(autouse=True)
def always_sure(monkeypatch):
    """Models of random weights give no token much: let them draft on nevertheless."""
    monkeypatch.setattr(model_drafter, "UNSURE", 0.0)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("large"), "qwen3.5")


@pytest.fixture(scope="module", params=SMALL)
def small(request, tmp_path_factory):
    """Other bits of the large one, which often agree with it, or another model, which seldom does."""
    return make_store(tmp_path_factory.mktemp("small"), request.param, "q3")


@pytest.fixture(scope="module")
def mate(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("mate"), "qwen3")


def load(store: Path, draft: Path | None = None, num_drafted: int | None = 5, **options) -> edgemoe.Model:
    name = "none" if draft is None else "store"
    draft_store = None if draft is None else open_store(draft)
    options = {"budget_bytes": 4 << 30, "context": CONTEXT, "draft": name, **options}
    return edgemoe.Model(
        load_engine(
            open_store(store), LoadOptions(draft_store=draft_store, num_drafted=num_drafted, **options)
        )
    )


def answers(model: edgemoe.Model):
    found = [model.generate(PROMPT, **GREEDY), model.generate(PROMPT, **SEEDED)]
    longer = [*PROMPT, *found[1].token_ids[:9], 4, 5, 6]  # a chat that goes on
    return [*found, model.generate(longer, **GREEDY), model.generate(PROMPT[:7] + PROMPT[:3], **SEEDED)]


def test_a_draft_store_changes_no_token(large, small):
    with load(large) as model:
        expected = answers(model)
    with load(large, small) as model:
        found = answers(model)
        assert model.stats().num_drafted == sum(answer.num_drafted for answer in found) > 0
    for one, other in zip(expected, found, strict=True):
        assert (one.token_ids, one.text, one.logprobs) == (other.token_ids, other.text, other.logprobs)


@pytest.mark.parametrize("kind", ["qwen3-window", "nemotron"])
def test_what_is_drafted_is_what_the_small_model_writes(kind, tmp_path):
    """A model that drafts for itself is always right, whatever was taken back before."""
    store = make_store(tmp_path, kind)
    with load(store, store, num_drafted=6) as model:
        for options in (GREEDY, {**GREEDY, "max_tokens": 40}):
            answer = model.generate(PROMPT, **options)
            assert answer.num_accepted > 10
            assert answer.num_drafted - answer.num_accepted < 6, "none but those behind its end"
        # Sampled tokens are often others than the likeliest: the draft goes back to what has come.
        sampled = model.generate(PROMPT, **SEEDED)
        assert 0 < sampled.num_accepted < sampled.num_drafted
        text, begins = model.engine.session.open(PROMPT, 28)
        drafts, logits = model.engine.drafting.begin(Room(CONTEXT)), text.read(begins)
        num_compared = 0
        for token_id in sampled.token_ids[:-1]:
            is_new = not text.has_ahead(token_id)
            logits = drafts.step(text, token_id)
            if is_new and drafts._guessed:  # there is room for another token
                num_compared += 1
                assert drafts._guessed[0][0] == int(np.argmax(logits))
        assert num_compared > 5
        drafts.close()


def test_the_memory_plan_shows_the_draft_and_counts_it(large, mate):
    with load(large) as model:
        alone = model.memory
    with load(large, mate) as model:
        plan = model.memory
        items = {item.key: item.num_bytes for item in plan.items}
        experts = sum(entry.num_bytes for entry in open_store(mate).manifest.experts.values())
        dense = sum(entry.num_bytes for entry in open_store(mate).manifest.dense.values())
        assert items["draft_model"] > experts + dense
        assert sum(items.values()) <= plan.budget_bytes
        assert plan.smallest_num_bytes > alone.smallest_num_bytes + items["draft_model"] // 2
    with pytest.raises(BudgetError, match="smallest budget that works"):
        load(large, mate, budget_bytes=alone.smallest_num_bytes)


def test_several_texts_share_the_draft(large, mate):
    prompts = [PROMPT, PROMPT[5:], PROMPT[:20]]
    with load(large, num_texts=2) as model:
        expected = [model.generate(prompt, **SEEDED).token_ids for prompt in prompts]
    with load(large, mate, num_texts=2) as model:
        found = {}
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: model.generate(prompts[i], **SEEDED)}))
            for i in range(len(prompts))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [found[i].token_ids for i in range(len(prompts))] == expected
        assert sum(answer.num_drafted for answer in found.values()) > 0


def test_texts_that_the_draft_cannot_read_go_on_without(large, tmp_path):
    mate = make_store(tmp_path, "qwen3", max_position_embeddings=40)
    with load(large) as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    with load(large, mate) as model:
        answer = model.generate(PROMPT, **GREEDY)
        assert answer.token_ids == expected
        assert 0 < answer.num_drafted < 40, "up to where its context ends"
        model.engine.drafting.model.session.close()
        answer = model.generate(PROMPT, **GREEDY)
        assert (answer.token_ids, answer.num_drafted) == (expected, 0)


def test_a_draft_that_fails_or_is_cancelled_leaves_the_answer_right(large, mate, monkeypatch):
    with load(large) as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    with load(large, mate) as model:
        draft = model.engine.drafting.model.session._machinery.experts
        run, calls = draft.run, []

        def fails_later(*arguments):
            calls.append(1)
            if len(calls) > 12:
                raise ExpertReadError("in the middle of a draft")
            return run(*arguments)

        monkeypatch.setattr(draft, "run", fails_later)
        answer = model.generate(PROMPT, **GREEDY)
        assert answer.token_ids == expected
        stream = model.stream(PROMPT, **GREEDY)
        tokens = [*next(stream).token_ids, *next(stream).token_ids]
        stream.cancel()
        assert list(stream) == []
        assert tokens == expected[:2]


def test_other_tokens_are_refused_in_one_line(large, mate, tmp_path):
    other = shutil.copytree(mate.parent / "checkpoint", tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, last = min(vocabulary, key=vocabulary.get), max(vocabulary, key=vocabulary.get)
    vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    convert(other, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    with pytest.raises(RequestError, match=r"cannot draft for .*: their tokenizers differ"):
        load(large, tmp_path / "store")


def test_a_guess_that_takes_time_is_made_where_it_pays_or_can_be_afforded(large, mate):
    """The governor knows what guessing takes: a slow draft is tried once, and no more."""
    with load(large, mate, num_drafted=None) as model:
        pace = model.engine.drafting.model.pace
        drafts = model.engine.drafting.begin(Room(CONTEXT))
        for _ in range(10):
            drafts._times.single(0.01, 0.0)
        text, begins = model.engine.session.open(PROMPT, 28)
        text.read(begins)
        assert (drafts._most(text), drafts._can_try(text)) == (0, True), "nothing is known of its pace"
        pace.guessed(1, 1e-6)
        assert drafts._most(text) > 1
        for _ in range(200):
            pace.guessed(1, 0.1)
        assert (drafts._most(text), drafts._can_try(text)) == (0, False), "ten steps for one token"
        for _ in range(1000):
            drafts._trials.earn(1)
        assert (drafts._most(text), drafts._can_try(text)) == (0, True), "after so many steps it is no loss"


def test_kinds_are_by_how_sure_the_model_is():
    logits = np.log(np.array([0.1, 0.6, 0.3], np.float32)) + 3
    token_id, sureness = likeliest(logits)
    assert token_id == 1
    assert sureness == pytest.approx(0.6)
    assert [kind_of(p) for p in (0.1, 0.3, 0.49, 0.6, 0.8, 0.95)] == [0, 1, 1, 2, 3, 4]


def test_the_option_takes_the_path_of_a_store(large, mate, tmp_path):
    with edgemoe.load(large, "4GiB", context=CONTEXT, draft=mate) as model:
        assert any(item.key == "draft_model" for item in model.memory.items)
        with edgemoe.load(large, "4GiB", context=CONTEXT) as other:
            assert model.generate(PROMPT, **GREEDY).token_ids == other.generate(PROMPT, **GREEDY).token_ids
    with pytest.raises(RequestError, match=r"no draft .*; choose one of"):
        edgemoe.load(large, draft=tmp_path / "nothing")
    with pytest.raises(RequestError, match="draft is 3; give one of"):
        edgemoe.load(large, draft=3)
