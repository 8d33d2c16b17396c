"""An answer claims room for a common length first: the same tokens, and what others have read stays."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch")

from helpers.live_server import DEMO_STORE
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine import session, state_pool
from edgemoe.quant import BitPlan

CONTEXT = 120
DRAW = {"temperature": 0.8, "seed": 3, "logit_bias": {0: -100.0}}


def prompt(start, length):
    """A text that no other start has in common with."""
    return [3 + (start + 7 * i) % (VOCAB_SIZE - 3) for i in range(length)]


@pytest.fixture(scope="module", params=["qwen3", "qwen3-window", "lfm2"])
def store(request, tmp_path_factory):
    """Keys and values of all tokens; of a window; and a state that cannot go back."""
    folder = tmp_path_factory.mktemp(request.param)
    plan = BitPlan.uniform("q8", "q8")
    convert(write_checkpoint(folder / "checkpoint", request.param), folder / "store", plan)
    return folder / "store"


@pytest.fixture
def first_answer(monkeypatch):
    """A common answer has eight tokens."""
    monkeypatch.setattr(session, "FIRST_ANSWER", 8)


def test_only_a_long_answer_takes_the_room_of_what_others_have_read(first_answer):
    long, side = prompt(0, 500), prompt(1, 10)
    with edgemoe.load(DEMO_STORE, "2GiB", context=1000) as model:
        pool = model.engine.session._machinery.pool
        model.generate(long, max_tokens=1, **DRAW)
        for num_written, num_known in ((4, 500), (600, 0)):
            text, begins = model.engine.session.open(side, 990)  # as where a client names no length
            text.read(begins)
            for n in range(num_written):
                text.step(5 + n)
                assert pool.page_bytes <= pool.claimed_bytes <= pool.capacity_bytes
            text.close()
            again = model.generate([*long, 5], max_tokens=1, **DRAW)
            assert again.num_cached_tokens == num_known


@pytest.mark.parametrize("draft", ["none", "text"])
def test_the_tokens_are_those_of_a_text_that_had_all_its_room(store, monkeypatch, draft):
    asked = prompt(0, 12) * 2
    answers = []
    for first in (1024, 8, 0):
        monkeypatch.setattr(session, "FIRST_ANSWER", first)
        with edgemoe.load(store, "2GiB", context=CONTEXT, draft=draft) as model:
            found = model.generate(asked, max_tokens=60, **DRAW)
            answers.append((found.token_ids, found.num_cached_tokens))
            then = model.generate([*asked, *found.token_ids, 5], max_tokens=1, **DRAW)
            assert then.num_cached_tokens >= len(asked) + 59
    assert answers == [answers[0]] * 3
    assert len(answers[0][0]) == 60


def test_texts_that_grow_together_do_not_stop_each_other(tiny_store, first_answer, monkeypatch):
    monkeypatch.setattr(state_pool, "PAUSE_S", 0.01)
    with edgemoe.load(tiny_store, "2GiB", context=CONTEXT) as model:
        alone = [model.generate(prompt(n, 10), max_tokens=80, **DRAW).token_ids for n in range(4)]
        found = [None] * 4

        def answer(n):
            found[n] = model.generate(prompt(n, 10), max_tokens=80, **DRAW).token_ids

        threads = [threading.Thread(target=answer, args=(n,), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert found == alone
