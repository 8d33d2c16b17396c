"""Steps of several texts: each row has the bits that it has alone, whatever the schedule."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from helpers.resident import load_resident
from helpers.tiny_models import FAMILIES, VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.checkpoint import open_checkpoint
from edgemoe.engine import batch
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import ExpertReadError
from edgemoe.models import Segment
from edgemoe.store import open_store
from edgemoe.workflows.demo import demo_store

LENGTH = 24
TEXTS = np.random.default_rng(7).integers(3, VOCAB_SIZE, (4, LENGTH)).astype(np.int32)
TEXTS[1, :9] = TEXTS[0, :9]  # two begin alike
PROMPTS = (
    "Once upon a time",
    "Once upon a time, there was a dog",
    "The little girl went to the park",
    "Tom had a red ball.",
    "One day, a cat and",
)
PATIENCE_S = 60


@pytest.fixture(scope="module", params=sorted({*FAMILIES, "qwen3-window", "qwen3.5", "lfm2"}))
def model(request, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp(request.param) / "checkpoint", request.param)
    spec, decoder = load_resident(open_checkpoint(folder))
    alone = [decoder.forward(text, spec.new_state(LENGTH)) for text in TEXTS]
    return spec, decoder, alone


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=4,
                         unique_by=lambda part: part[0]), min_size=1, max_size=14))  # fmt: skip
def test_any_schedule_gives_every_text_what_it_has_alone(model, schedule):
    spec, decoder, alone = model
    states = [spec.new_state(LENGTH) for _ in TEXTS]
    for step in schedule:
        parts = [(i, min(count, LENGTH - states[i].length)) for i, count in step]
        segments, tokens, expected = [], [], []
        for i, count in parts:
            if count:
                at = states[i].length
                segments.append(Segment(sum(map(len, tokens)), count, states[i]))
                tokens.append(TEXTS[i, at : at + count])
                expected.append(alone[i][at : at + count])
        if segments:
            hidden = decoder.step(np.concatenate(tokens), segments)
            assert np.array_equal(hidden, np.concatenate(expected))


@pytest.fixture(scope="module")
def store():
    with demo_store() as path:
        yield path


@pytest.fixture
def watched(store):
    """A model that keeps everything in memory, and the texts in each of its steps."""
    with edgemoe.load(store, "4GiB", context=256, num_texts=8) as model:
        steps = model.engine.session._machinery.steps
        make, sizes = steps.make, []

        def noting(parts):
            sizes.append([part.wish for part in parts])
            make(parts)

        steps.make = noting
        yield model, sizes


def at_once(model, **options):
    """All prompts answered by threads whose first steps all wait before one is made."""
    scheduler, answers = model.engine.session._machinery.scheduler, []
    with scheduler.turn():
        asking = threading.Thread(target=lambda: answers.extend(model.generate_many(PROMPTS, **options)))
        asking.start()
        for _ in range(6000):
            if len(scheduler._line) == len(PROMPTS):
                break
            threading.Event().wait(0.01)
    asking.join(PATIENCE_S)
    assert not asking.is_alive()
    return [answer.token_ids for answer in answers]


def alone(store, **options):
    answers = []
    for prompt in PROMPTS:
        with edgemoe.load(store, "4GiB", context=256) as model:
            answers.append(model.generate(prompt, **options).token_ids)
    return answers


def test_many_prompts_run_together_where_all_is_in_memory(store, watched):
    model, steps = watched
    options = {"max_tokens": 24, "temperature": 0.8, "seed": 4}
    assert at_once(model, **options) == alone(store, **options)
    assert [wish.is_answer for wish in steps[0]] == [False] * len(PROMPTS)


def test_samples_of_one_prompt_run_together_and_read_it_once(store, watched):
    model, steps = watched
    answers = model.generate_n(PROMPTS[1], 4, max_tokens=24, temperature=1.0, seed=9)
    length = answers[0].num_prompt_tokens
    assert [a.num_cached_tokens for a in answers] == [0, *[length - 1] * 3]
    assert sum(wish.num_rows for step in steps for wish in step if not wish.is_answer) == length - 1 + 4
    with edgemoe.load(store, "4GiB", context=256) as model:
        for i, answer in enumerate(answers):
            own = model.generate(PROMPTS[1], max_tokens=24, temperature=1.0, seed=9 + i)
            assert own.token_ids == answer.token_ids


def test_streamed_experts_serve_several_texts_in_a_step(store):
    """By default answers take turns there; together they say the same."""
    options = {"max_tokens": 12}
    for answers_at_once in (2, 5):
        loading = LoadOptions(4 << 30, 256, cache_bytes=1 << 20, num_texts=6, answers_at_once=answers_at_once)
        with edgemoe.Model(load_engine(open_store(store), loading)) as model:
            answers = model.generate_many(PROMPTS, **options)
        assert [answer.token_ids for answer in answers] == alone(store, **options)


def test_a_long_chunk_is_read_with_another_texts_that_comes_later(watched, monkeypatch):
    """Where storage was waited for, it waits; here as long as it takes the other to come."""
    model, sizes = watched
    monkeypatch.setattr(batch, "MOST_GATHERING_S", PATIENCE_S)
    prompts = [(model.tokenizer.encode(text) * 50)[:200] for text in PROMPTS[2:4]]
    expected = [model.generate(prompt, max_tokens=4).token_ids for prompt in prompts]
    model.engine.session.forget()
    model.engine.session._machinery.steps._lone_chunk = batch.LoneChunk(took_s=6000.0, waited_s=5000.0)
    sizes.clear()
    streams = [model.stream(prompt, max_tokens=4) for prompt in prompts]
    found = [[], []]
    asking = [
        threading.Thread(
            target=lambda i=i: found[i].extend(t for chunk in streams[i] for t in chunk.token_ids)
        )
        for i in range(2)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(2 * PATIENCE_S)
    assert found == expected
    chunks = [[wish.num_rows for wish in step if not wish.is_answer] for step in sizes]
    assert [len(rows) for rows in chunks if rows] == [2]


def test_a_step_that_fails_fails_for_each_alone(store):
    """What one text cannot have is no fault of the others in its step."""
    with edgemoe.load(store, "4GiB", context=256, num_texts=6) as model:
        steps = model.engine.session._machinery.steps
        run, failures = steps._run, []

        def failing(parts):
            if len(parts) > 1:
                failures.append(len(parts))
                raise ExpertReadError("one of them")
            run(parts)

        steps._run = failing
        assert at_once(model, max_tokens=10) == alone(store, max_tokens=10)
        assert failures[0] == len(PROMPTS)


def test_an_answer_and_anothers_long_prompt_do_not_disturb_each_other(store):
    with edgemoe.load(store, "4GiB", context=1024, num_texts=2) as model:
        prompt = (model.tokenizer.encode(PROMPTS[1]) * 200)[:1000]
        expected = model.generate(PROMPTS[0], max_tokens=40).token_ids
        wanted = model.generate(prompt, max_tokens=2).token_ids
        model.engine.session.forget()
        stream, found = model.stream(PROMPTS[0], max_tokens=40), []
        tokens = list(next(stream).token_ids)
        other = threading.Thread(target=lambda: found.append(model.generate(prompt, max_tokens=2).token_ids))
        other.start()
        tokens += [t for chunk in stream for t in chunk.token_ids]
        other.join(PATIENCE_S)
        assert found == [wanted]
        assert tokens == expected
