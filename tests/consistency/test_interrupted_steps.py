"""A step of two texts that ends with an error or Ctrl-C: who is not to blame gets the right answer."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine.state_pool import StatePool
from edgemoe.engine.steps import Part, StepMaker
from edgemoe.quant import BitPlan

PROMPTS = [np.random.default_rng(seed).integers(3, VOCAB_SIZE, 10 + seed).tolist() for seed in (1, 2)]
NUM_TOKENS = 8
PATIENCE_S = 60  # only a test that fails waits for so long


@pytest.fixture(scope="module", params=["qwen3.5", "qwen3"])
def store(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("interrupted")
    write_checkpoint(place / "checkpoint", request.param)
    convert(place / "checkpoint", place / "store", BitPlan.uniform("q4", "q8"))
    return place / "store"


@pytest.fixture(scope="module")
def alone(store):
    with load(store) as model:
        return [model.generate(prompt, max_tokens=NUM_TOKENS).token_ids for prompt in PROMPTS]


def load(store):
    return edgemoe.load(store, "4GiB", context=128, num_texts=4)


def write_both(model, monkeypatch):
    """Both answers, in steps of both wherever no error has come between; their reasons to end, too."""
    scheduler, live = model.engine.session._machinery.scheduler, [True, True]
    answers = [None, None]

    def gathering_s(self, waiting):
        return 0.0 if waiting[0].wish.is_alone or len(waiting) >= sum(live) else PATIENCE_S

    monkeypatch.setattr(StepMaker, "gathering_s", gathering_s)

    def write(number):
        try:
            answer = model.generate(PROMPTS[number], max_tokens=NUM_TOKENS)
            answers[number] = answer.token_ids, answer.finish_reason
        finally:
            live[number] = False
            scheduler.wake()

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it waits for a step that nobody makes"
    return answers


def is_third_shared(parts, num_seen=2):
    """Of the steps of both answers: a state that was kept at the prompt's end has left that behind."""
    lengths = sorted(len(part.holding.token_ids) for part in parts)
    return lengths == [len(prompt) + num_seen for prompt in PROMPTS]


def test_a_shared_step_that_fails_once_costs_nobody_a_token(store, alone, monkeypatch):
    failed, run = [], StepMaker._run

    def fails_at_its_end(self, parts):
        if failed or not is_third_shared(parts):
            return run(self, parts)
        with monkeypatch.context() as patch:
            patch.setattr(self._decoder, "head", lambda hidden: failed.append(hidden) or 1 / 0)
            return run(self, parts)

    monkeypatch.setattr(StepMaker, "_run", fails_at_its_end)
    with load(store) as model:
        answers = write_both(model, monkeypatch)
    assert [len(hidden) for hidden in failed] == [2]
    assert answers == [(token_ids, "length") for token_ids in alone]


@pytest.mark.parametrize("place", ["before", "after", "between"])
def test_ctrl_c_in_a_shared_step_is_of_one_text_alone(store, alone, monkeypatch, place):
    interrupted, run = [], StepMaker._run

    def interrupts(self, parts):
        if interrupted or not is_third_shared(parts):
            return run(self, parts)
        interrupted.append(True)
        if place == "between":  # one has its token, the other not
            run(self, parts[:1])
        if place == "after":
            run(self, parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(StepMaker, "_run", interrupts)
    with load(store) as model:
        answers = write_both(model, monkeypatch)
        assert sorted(reason for _, reason in answers) == ["interrupted", "length"]
        for (token_ids, reason), expected in zip(answers, alone, strict=True):
            assert token_ids == (expected if reason == "length" else expected[:3])
        again = [model.generate(prompt, max_tokens=NUM_TOKENS).token_ids for prompt in PROMPTS]
    assert again == alone


def test_a_text_that_a_second_ctrl_c_left_too_long_is_taken_back(store, alone, monkeypatch):
    prompt = PROMPTS[0]
    with load(store) as model:
        machinery = model.engine.session._machinery
        text, _ = model.engine.session.open(prompt, NUM_TOKENS)
        token_id = int(np.argmax(text.read(prompt)))
        holding = text._holding
        part = Part(holding, [token_id], lambda: False, is_answer=True, has_logits=True)
        with monkeypatch.context() as patch:
            patch.setattr(machinery.decoder, "head", lambda hidden: 1 / 0)
            patch.setattr(machinery.pool, "rewind", lambda *_: None)
            with pytest.raises(ZeroDivisionError):
                machinery.steps.make([part])
        assert holding.state.length == len(prompt) + 1
        tokens = [token_id]
        while len(tokens) < NUM_TOKENS:
            tokens.append(int(np.argmax(text.step(tokens[-1]))))
        text.close()
    assert tokens == alone[0]


@pytest.mark.parametrize("name", ["borrow", "pin", "unpin"])
def test_ctrl_c_on_the_way_to_a_text_s_room_keeps_none_of_it(store, alone, monkeypatch, name):
    done = StatePool.__dict__[name]

    def interrupted(self, *arguments, **options):
        if name != "unpin":
            done(self, *arguments, **options)
        raise KeyboardInterrupt

    with edgemoe.load(store, "4GiB", context=128) as model:
        for _ in range(3):
            stream = model.stream(PROMPTS[0], max_tokens=NUM_TOKENS)
            if name == "pin":  # the first step borrows
                next(stream)
            with monkeypatch.context() as patch:
                patch.setattr(StatePool, name, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    next(stream)
        pool = model.engine.session._machinery.pool
        assert [holding.num_pins for holding in pool.kept()] == [0] * len(pool.kept())
        # All the room is there: for a text of another beginning that fills it.
        rest = [*reversed(PROMPTS[1])] * 10
        assert len(model.generate(rest, max_tokens=2).token_ids) == 2
        assert model.generate(PROMPTS[0], max_tokens=NUM_TOKENS).token_ids == alone[0]


class InterruptedLine(deque):
    """Ctrl-C as the first one gets in line."""

    is_over = False

    def append(self, ticket):
        super().append(ticket)
        if not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt


def test_ctrl_c_on_the_way_into_the_line_for_room_leaves_nobody_in_it(store, alone):
    with load(store) as model:
        pool = model.engine.session._machinery.pool
        pool._line = InterruptedLine()
        with pytest.raises(KeyboardInterrupt):
            next(model.stream(PROMPTS[0], max_tokens=NUM_TOKENS))
        assert not pool._line
        assert model.generate(PROMPTS[0], max_tokens=NUM_TOKENS).token_ids == alone[0]
