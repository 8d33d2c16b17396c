"""Answers with drafts have the tokens, texts and probabilities of those without, however many were wrong."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.drafters import KnowingDrafter, check_drafts_change_nothing, with_drafter
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine.drafting import Room
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import ExpertReadError, RequestError
from edgemoe.quant import BitPlan
from edgemoe.store import open_store

CONTEXT = 96
PROMPT = np.random.default_rng(5).integers(3, VOCAB_SIZE, 30).tolist()
GREEDY = {"max_tokens": 28, "logprobs": 2}
SEEDED = {
    "max_tokens": 28, "temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "seed": 3, "logprobs": 1,
    "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2,
    "logit_bias": {5: 2.0, 7: -3.0},
}  # fmt: skip
# Attention with and without a window, latent attention, and each mixer that cannot go back.
KINDS = ("qwen3-window", "qwen3.5", "lfm2", "nemotron", "kimi-linear")


@pytest.fixture(scope="module", params=KINDS)
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drafts")
    checkpoint = write_checkpoint(folder / "checkpoint", request.param)
    convert(checkpoint, folder / "store", BitPlan.uniform("q4", "q8"))
    return folder / "store"


def load(path, cache=None, **options):
    return edgemoe.load(path, "4GiB", cache=cache, context=CONTEXT, **{"draft": "none", **options})


def a_third(path):
    entries = open_store(path).manifest.experts.values()
    return max(entry.num_bytes for entry in entries) * len(entries) // 3


@pytest.mark.parametrize("streams", [False, True])
def test_drafts_change_no_token(store, streams):
    with load(store, a_third(store) if streams else None) as model:
        assert model.memory.is_resident != streams
        for options in (GREEDY, SEEDED):
            num_drafted, num_accepted = check_drafts_change_nothing(model, PROMPT, **options)
            assert 0 < num_accepted < num_drafted
        # All right: the fewest steps. All wrong: every one is taken back.
        assert len(set(check_drafts_change_nothing(model, PROMPT, mistake_every=10**6, **GREEDY))) == 1
        assert check_drafts_change_nothing(model, PROMPT, mistake_every=1, **GREEDY)[1] == 0


def test_a_chat_goes_on_after_an_answer_with_drafts(store):
    with load(store) as model:
        answer = model.generate(PROMPT, max_tokens=9).token_ids
        longer = [*PROMPT, *answer, 4, 5, 6]
        model.engine.session.forget()
        expected = model.generate(longer, **GREEDY).token_ids
        model.engine.session.forget()
        drafter = KnowingDrafter(answer, len(PROMPT), mistake_every=3)
        assert with_drafter(model, drafter).generate(PROMPT, max_tokens=9).token_ids == answer
        found = model.generate(longer, **GREEDY)
        assert found.token_ids == expected
        assert found.num_cached_tokens > 0


class OnlyOdd:
    """A constraint: tokens are odd after even ones, and any after odd ones. Knows only what was accepted."""

    def __init__(self):
        self.seen = []

    def mask(self):
        mask = np.ones(VOCAB_SIZE, np.bool_)
        mask[:: 2 if self.seen and self.seen[-1] % 2 == 0 else VOCAB_SIZE] = False
        return mask

    def accept(self, token_id):
        self.seen.append(token_id)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    convert(write_checkpoint(folder / "checkpoint", "olmoe"), folder / "store", BitPlan.uniform("q4", "q8"))
    return folder / "store"


def test_constraints_and_stops_see_accepted_tokens_only(small):
    with load(small) as model:
        first = OnlyOdd()
        alone = model.generate(PROMPT, constraint=first, **SEEDED)
        second = OnlyOdd()
        drafter = KnowingDrafter(alone.token_ids, len(PROMPT), mistake_every=3)
        found = with_drafter(model, drafter).generate(PROMPT, constraint=second, **SEEDED)
        assert found.token_ids == alone.token_ids
        assert second.seen == first.seen
        stop = model.generate(PROMPT, **GREEDY).text[10:13]
        check_drafts_change_nothing(model, PROMPT, stop=stop, **GREEDY)


def test_several_texts_are_drafted_in_the_same_steps(small):
    """One of them without drafts; each in a thread of its own, together in the model's steps."""
    prompts = [PROMPT, PROMPT[5:], PROMPT[:20], PROMPT[3:25]]
    with load(small, num_texts=4) as model:
        alone = [model.generate(prompt, **SEEDED).token_ids for prompt in prompts]
        models = [
            with_drafter(model, KnowingDrafter(answer, len(prompt), 3, seed=i), 3 * i)
            for i, (prompt, answer) in enumerate(zip(prompts, alone, strict=True))
        ]
        found = {}
        steps, sizes = model.engine.session._machinery.steps, []
        make = steps.make

        def noting(parts):
            sizes.append([part.wish.num_rows for part in parts])
            make(parts)

        steps.make = noting
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: models[i].generate(prompts[i], **SEEDED)}))
            for i in range(len(prompts))
        ]
        with model.engine.session._machinery.scheduler.turn():
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join(60)
        assert [found[i].token_ids for i in range(len(prompts))] == alone
        assert found[0].num_drafted == 0
        assert found[3].num_accepted > 0


def test_a_step_with_drafts_that_fails_leaves_the_text_right(store, monkeypatch):
    with load(store) as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
        drafted = with_drafter(model, KnowingDrafter(expected, len(PROMPT), mistake_every=4))
        experts = model.engine.experts
        run, calls = experts.run, []

        def fails_now_and_then(layer, x, *arguments):
            calls.append(len(x))
            if 1 < len(x) < len(PROMPT) and calls.count(len(x)) == 2:
                raise ExpertReadError("in the middle of a step")
            return run(layer, x, *arguments)

        monkeypatch.setattr(experts, "run", fails_now_and_then)
        text, begins = model.engine.session.open(PROMPT, 28)
        drafts = drafted.engine.drafting.begin(Room(CONTEXT))
        logits, tokens, num_failures = text.read(begins), [], 0
        while len(tokens) < len(expected):
            tokens.append(int(np.argmax(logits)))
            try:
                logits = drafts.step(text, tokens[-1])
            except ExpertReadError:
                num_failures += 1
                logits = text.step(tokens[-1])
        assert tokens == expected
        assert num_failures > 0


def test_texts_that_lose_their_room_lose_their_drafts_alone(small):
    with load(small) as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
        drafter = KnowingDrafter(expected, len(PROMPT), mistake_every=10**6)
        stream = with_drafter(model, drafter).stream(PROMPT, **GREEDY)
        tokens = []
        for chunk in stream:
            tokens += chunk.token_ids
            if len(tokens) % 5 == 0:
                pool = model.engine.session._machinery.pool
                for holding in list(pool._held.lent):
                    pool._held.lose(holding)
        assert tokens == expected


def test_the_text_itself_is_drafted_by_option(small):
    path = open_store(small)
    prompt = PROMPT[:8] * 4
    with load(small) as model:
        expected = model.generate(prompt, **GREEDY)
        assert expected.num_drafted == 0
    with edgemoe.Model(
        load_engine(path, LoadOptions(4 << 30, CONTEXT, draft="text", num_drafted=4))
    ) as model:
        found = model.generate(prompt, **GREEDY)
        assert found.token_ids == expected.token_ids
        assert found.num_drafted > 0
        assert model.stats().num_drafted == found.num_drafted
        assert model.stats().num_accepted == found.num_accepted
    with load(small, draft="auto") as model:
        assert model.generate(prompt, **GREEDY).token_ids == expected.token_ids
    with pytest.raises(RequestError, match="no draft 'txt'; choose one of auto, none, text"):
        load(small, draft="txt")
