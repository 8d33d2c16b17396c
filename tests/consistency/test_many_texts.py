"""A text's tokens do not depend on its company: threads, open streams, cancelled and closed ones, one model.

Real threads on the embedded model, whose experts are streamed. Every answer is compared with the one that the
same request has alone.
"""

from __future__ import annotations

import asyncio
import random
import threading

import numpy as np
import pytest

import edgemoe
from edgemoe.errors import RequestError
from edgemoe.workflows.demo import demo_store

PROMPTS = (
    "Once upon a time",
    "Once upon a time, there was a dog named Max. He liked to play",
    "The little girl went to the park with her mother. They saw a big tree and",
    "Tom had a red ball.",
)
OPTIONS = (
    {"max_tokens": 20},
    {"max_tokens": 12, "temperature": 0.8, "seed": 5},
    {"max_tokens": 16, "temperature": 1.0, "seed": 6, "repetition_penalty": 1.2, "logprobs": 2},
)
REQUESTS = [(prompt, options) for prompt in PROMPTS for options in OPTIONS]
PATIENCE_S = 60  # only a test that fails waits for so long


@pytest.fixture(scope="module")
def store():
    with demo_store() as path:
        yield path


def load(store, *, context=128, cache="2MiB", **options):
    return edgemoe.load(store, "4GiB", context=context, cache=cache, **options)


@pytest.fixture(scope="module")
def alone(store):
    """The tokens of every request, each by itself on a model that has seen nothing else."""
    answers = {}
    for number, (prompt, options) in enumerate(REQUESTS):
        with load(store, cache=None) as model:
            answers[number] = model.generate(prompt, **options).token_ids
    return answers


def in_threads(*functions):
    """Run them at once; the first error of any is raised."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("options", [{}, {"num_texts": 3}, {"context": 48}])
def test_many_threads_get_what_each_would_get_alone(store, alone, options):
    with load(store, **options) as model:

        def ask(first):
            for number in range(first, len(REQUESTS), 3):
                prompt, wanted = REQUESTS[number]
                assert model.generate(prompt, **wanted).token_ids == alone[number]

        in_threads(*(lambda first=first: ask(first) for first in range(3)))


@pytest.mark.parametrize("options", [{"num_texts": 4}, {}, {"context": 48}])
def test_streams_of_one_thread_take_turns(store, alone, options):
    """Without room for all of them their states come and go, which changes nothing."""
    with load(store, **options) as model:
        numbers = [0, 4, 7, 11]
        streams = [model.stream(REQUESTS[i][0], **REQUESTS[i][1]) for i in numbers]
        waiting = list(streams)
        while waiting:
            waiting = [stream for stream in waiting if next(stream, None) is not None]
        assert [stream.generation.token_ids for stream in streams] == [alone[i] for i in numbers]


@pytest.mark.parametrize("seed", range(4))
def test_mixtures_of_answers_that_end_in_every_way(store, alone, seed):
    """Threads that finish, cancel, close and drop answers, score and read logits, drawn at random."""
    with load(store, cache=random.Random(seed).choice(["1MiB", "3MiB", None])) as model:
        logits = model.logits([5, 6, 7, 8])

        def finish(rng):
            number = rng.randrange(len(REQUESTS))
            answer = model.generate(REQUESTS[number][0], **REQUESTS[number][1])
            assert answer.token_ids == alone[number]

        def cancel(rng):
            number = rng.randrange(len(REQUESTS))
            stream = model.stream(REQUESTS[number][0], **REQUESTS[number][1])
            steps = rng.randrange(5)
            for _ in range(steps):
                next(stream)
            rng.choice([stream.cancel, stream.close])()
            assert next(stream, None) is None
            assert stream.generation.token_ids == alone[number][:steps]

        def drop(rng):
            number = rng.randrange(len(REQUESTS))
            stream = model.stream(REQUESTS[number][0], **REQUESTS[number][1])
            assert next(stream).token_ids == tuple(alone[number][:1])

        def score(rng):
            assert np.array_equal(model.logits([5, 6, 7, 8]), logits)

        def two_at_once(rng):
            numbers = rng.sample(range(len(REQUESTS)), 2)
            streams = [model.stream(REQUESTS[i][0], **REQUESTS[i][1]) for i in numbers]
            for _ in range(25):
                for stream in streams:
                    next(stream, None)
            for stream, number in zip(streams, numbers, strict=True):
                assert stream.generation.token_ids == alone[number]

        def work(rng):
            for _ in range(6):
                rng.choice([finish, cancel, drop, score, two_at_once])(rng)

        in_threads(*(lambda i=i: work(random.Random(10 * seed + i)) for i in range(3)))
        assert model.generate(*REQUESTS[0][:1], **REQUESTS[0][1]).token_ids == alone[0]


def test_cancelling_from_another_thread_ends_a_prompt_between_chunks(store, alone):
    with load(store, context=512) as model:
        size = model.memory.chunk_size
        prompt = (model.tokenizer.encode(PROMPTS[1]) * 100)[: min(500, 3 * size)]
        seen = []
        stream = model.stream(prompt, progress=lambda done, total: (seen.append((done, total)), cancel()))

        def cancel():
            thread = threading.Thread(target=stream.cancel)
            thread.start()
            thread.join(PATIENCE_S)

        assert next(stream, None) is None
        assert seen == [(min(size, len(prompt)), len(prompt))]
        generation = stream.generation
        assert (generation.finish_reason, generation.token_ids) == ("cancelled", [])
        assert model.generate(*REQUESTS[0][:1], **REQUESTS[0][1]).token_ids == alone[0]


def test_closing_the_model_while_others_generate(store):
    for seed in range(6):
        model = load(store)
        started = threading.Barrier(3)

        def ask(model=model, started=started):
            stream = model.stream(PROMPTS[0], max_tokens=100)
            started.wait(PATIENCE_S)
            with pytest.raises(RequestError, match="the model is closed; load it again"):
                for _ in stream:
                    pass
            assert next(stream, None) is None

        def close(model=model, started=started, seed=seed):
            started.wait(PATIENCE_S)
            threading.Event().wait(seed * 0.002)  # at another moment each time; any is right
            model.close()

        in_threads(ask, ask, close)
        with pytest.raises(RequestError, match="the model is closed"):
            model.generate(PROMPTS[0])


def test_a_stream_that_is_over_stays_over(store):
    with load(store) as model:
        stream = model.stream(PROMPTS[0], max_tokens=3)
        assert len(list(stream)) == 3
        assert list(stream) == []
        with model.stream(PROMPTS[0]) as left:
            next(left)
        assert next(left, None) is None
        assert left.generation.finish_reason == "interrupted"
        left.close()
        left.cancel()
        unfinished = model.stream(PROMPTS[0])
    assert stream.generation.finish_reason == "length"
    with pytest.raises(RequestError, match="the model is closed"):
        next(unfinished)
    assert next(unfinished, None) is None


def test_a_stream_asked_by_two_threads_gives_each_chunk_once(store, alone):
    with load(store) as model:
        stream, seen = model.stream(REQUESTS[0][0], **REQUESTS[0][1]), []

        def take():
            for chunk in stream:
                seen.append(chunk)

        in_threads(take, take, take)
    # What two threads append need not be in the order of taking; the answer itself is.
    assert stream.generation.token_ids == alone[0]
    assert sorted(t for c in seen for t in c.token_ids) == sorted(alone[0])


def test_an_error_in_a_callback_ends_its_answer_only(store, alone):
    with load(store) as model:

        def fail(done, total):
            raise ZeroDivisionError

        other = model.stream(REQUESTS[3][0], **REQUESTS[3][1])
        next(other)
        with pytest.raises(ZeroDivisionError):
            model.generate(PROMPTS[0], progress=fail)
        for _ in other:
            pass
        assert other.generation.token_ids == alone[3]


def test_a_callback_may_use_the_model(store, alone):
    with load(store) as model:
        inner = []
        options = {"progress": lambda *_: inner.append(model.generate(REQUESTS[0][0], **REQUESTS[0][1]))}
        answer = model.generate(REQUESTS[3][0], **REQUESTS[3][1], **options)
        assert answer.token_ids == alone[3]
        assert inner[0].token_ids == alone[0]


def test_asyncio_iterates_and_cancels(store, alone):
    async def read(model, number):
        stream = model.astream(REQUESTS[number][0], **REQUESTS[number][1])
        return [t async for chunk in stream for t in chunk.token_ids]

    async def cancelled(model):
        stream = model.astream(PROMPTS[0], max_tokens=100)
        first = asyncio.Event()

        async def consume():
            async for _ in stream:
                first.set()

        task = asyncio.create_task(consume())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with stream:
            assert [chunk async for chunk in stream] == []
        return stream.generation

    async def main(model):
        several = [read(model, n) for n in (0, 4, 8)]
        *answers, ended = await asyncio.gather(*several, cancelled(model))
        assert answers == [alone[n] for n in (0, 4, 8)]
        assert ended.finish_reason == "cancelled"
        # The thread of a call that is cancelled goes on by itself, which hurts nobody.
        task = asyncio.create_task(asyncio.to_thread(model.generate, PROMPTS[2], max_tokens=30))
        await asyncio.sleep(0)
        task.cancel()
        assert await read(model, 5) == alone[5]

    with load(store) as model:
        asyncio.run(main(model))


def test_what_answers_cost_is_counted_for_each(store):
    with load(store, num_texts=2) as model:
        before = model.stats()
        streams = [model.stream(prompt, max_tokens=5) for prompt in PROMPTS[:2]]
        for _ in range(5):
            for stream in streams:
                next(stream)
        after, costs = model.stats(), [stream.generation for stream in streams]
    assert sum(c.expert_misses for c in costs) == after.expert_misses - before.expert_misses
    assert sum(c.expert_hits for c in costs) == after.expert_hits - before.expert_hits
    assert sum(c.bytes_read for c in costs) <= after.bytes_read - before.bytes_read


def test_a_prompt_is_read_once_for_all_its_answers(store):
    with load(store) as model:
        seeds = [model.generate(PROMPTS[1], max_tokens=8, temperature=1, seed=s) for s in (3, 4, 5)]
    with load(store) as model:
        answers = model.generate_n(PROMPTS[1], 3, max_tokens=8, temperature=1, seed=3)
    assert [a.token_ids for a in answers] == [a.token_ids for a in seeds]
    length = answers[0].num_prompt_tokens
    assert [a.num_cached_tokens for a in answers] == [0, length - 1, length - 1]


def test_answers_to_a_long_prompt_share_its_memory_and_no_token(store):
    """Of 300 tokens a head's first four pages are shared; then the answers part."""
    prompt = np.random.default_rng(3).integers(1, 500, 300).tolist()
    with load(store, context=1024, cache=None) as model:
        seeds = [model.generate(prompt, max_tokens=12, temperature=1, seed=s) for s in (3, 4, 5, 6)]
    with load(store, context=1024, cache=None) as model:
        assert model._open().session.num_at_once(312) == 2
        assert model._open().session.num_at_once(312, 299) >= 4
        answers = model.generate_n(prompt, 4, max_tokens=12, temperature=1, seed=3)
    assert [a.token_ids for a in answers] == [a.token_ids for a in seeds]
    assert len({tuple(a.token_ids) for a in answers}) > 1


def test_many_prompts_are_answered_in_their_order(store, alone):
    with load(store) as model:
        seen = []
        answers = model.generate_many(PROMPTS, on_answer=lambda *done: seen.append(done), **REQUESTS[0][1])
        assert [a.token_ids for a in answers] == [alone[3 * i] for i in range(len(PROMPTS))]
        assert seen == [(i, len(PROMPTS)) for i in range(1, len(PROMPTS) + 1)]
        with pytest.raises(RequestError, match="outside the vocabulary"):
            model.generate_many([[1], [10**6]])
