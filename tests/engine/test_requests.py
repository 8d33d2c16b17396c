"""What a caller may say of an answer: names and values are checked, and each does what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgemoe
from edgemoe.engine.requests import AnswerOptions, make_request
from edgemoe.engine.sampling import Sampling, adjusted, sample, token_logprob
from edgemoe.errors import RequestError
from edgemoe.workflows.demo import demo_store

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model():
    with demo_store() as path, edgemoe.load(path, "4GiB", context=128) as model:
        yield model


def test_penalties_of_the_answer_and_biases_by_hand():
    sampling = Sampling(presence_penalty=1.0, frequency_penalty=0.5, logit_bias={0: 2.0, 3: -1.5})
    logits = np.array([1.0, 1.0, 1.0, 1.0], np.float32)
    # Token 1 came twice, token 2 once; the prompt does not count.
    assert adjusted(logits, sampling, [0, 0, 0], [1, 2, 1]).tolist() == [3.0, -1.0, -0.5, -0.5]
    assert logits.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert adjusted(logits, Sampling(), [0], [1]) is logits


def test_a_bias_can_rule_a_token_out():
    sampling = Sampling(temperature=2.0, logit_bias={1: -np.inf, 3: -np.inf})
    generator = np.random.default_rng(0)
    assert {sample(LOGITS, sampling, generator, []) for _ in range(200)} == {0, 2}


def test_a_mask_leaves_what_it_allows():
    mask = np.array([True, False, True, False])
    generator = np.random.default_rng(0)
    assert sample(LOGITS, Sampling(), generator, [], mask=mask) == 2
    drawn = [sample(LOGITS, Sampling(temperature=1), generator, [], mask=mask) for _ in range(3000)]
    # Four standard deviations of a share over 3000 draws.
    assert np.bincount(drawn) / 3000 == pytest.approx([1 / 3, 0, 2 / 3], abs=0.035)
    with pytest.raises(RequestError, match="allows no token"):
        sample(LOGITS, Sampling(), generator, [], mask=np.zeros(4, bool))


def test_logprobs_by_hand():
    found = token_logprob(LOGITS + 7, 0, 2)
    assert found.logprob == pytest.approx(np.log(0.1), abs=1e-6)
    assert [token for token, _ in found.top] == [1, 3]
    assert [p for _, p in found.top] == pytest.approx(np.log([0.4, 0.3]), abs=1e-6)
    assert token_logprob(LOGITS, 2, 0).top == ()
    equal = token_logprob(np.zeros(9, np.float32), 5, 3)
    assert [token for token, _ in equal.top] == [0, 1, 2]


def test_logprobs_are_of_the_models_own_distribution(model):
    options = {"max_tokens": 5, "temperature": 0.7, "seed": 2, "repetition_penalty": 1.3, "logprobs": 3}
    chunks = list(model.stream(PROMPT, **options))
    generation = model.generate(PROMPT, **options)
    told = [one for chunk in chunks for one in chunk.logprobs]
    assert told == generation.logprobs
    prompt = model.tokenizer.encode(PROMPT)
    logits = model.logits([*prompt, *generation.token_ids]).astype(np.float64)
    for i, one in enumerate(told):
        row = logits[len(prompt) - 1 + i]
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert one.token_id == generation.token_ids[i]
        assert one.logprob == pytest.approx(expected[one.token_id], abs=1e-9)
        assert [token for token, _ in one.top] == np.argsort(-row, kind="stable")[:3].tolist()
    assert json.loads(json.dumps(generation.to_json()))["logprobs"][0]["token_id"] == told[0].token_id


class Evens:
    """Lets even tokens through; after three of them, the end."""

    def __init__(self, vocab_size, end):
        self.vocab_size, self.end, self.accepted = vocab_size, end, []

    def mask(self):
        if len(self.accepted) == 3:
            return np.arange(self.vocab_size) == self.end
        return (np.arange(self.vocab_size) % 2 == 0) & (np.arange(self.vocab_size) != self.end)

    def accept(self, token_id):
        self.accepted.append(token_id)


def test_a_constraint_may_leave_all_free(model):
    class Free(Evens):
        def mask(self):
            return None

    free = Free(model.spec.vocab_size, 0)
    options = {"temperature": 1.0, "seed": 1, "max_tokens": 8}
    assert model.generate(PROMPT, constraint=free, **options).token_ids == free.accepted
    assert free.accepted == model.generate(PROMPT, **options).token_ids


def test_a_constraint_says_what_comes_and_where_it_ends(model):
    (end,) = list(model.tokenizer.stop_ids)[:1]
    constraint = Evens(model.spec.vocab_size, end)
    answer = model.generate(PROMPT, temperature=1.0, seed=1, constraint=constraint)
    assert answer.token_ids == [*constraint.accepted, end]
    assert all(token % 2 == 0 for token in constraint.accepted)
    assert answer.finish_reason == "stop"
    with pytest.raises(RequestError, match="one answer only"):
        model.generate_n(PROMPT, 2, constraint=constraint)


def test_progress_counts_the_tokens_of_the_prompt(model):
    seen = []
    prompt = list(range(5, 70))
    model.generate(prompt, max_tokens=1, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (65, 65)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1.0}, "there is no option 'temprature'; did you mean 'temperature'"),
        ({"nonsense": 1}, "there is no option 'nonsense'"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"logit_bias": {10**7: 1.0}}, "logit_bias: token id 10000000 is outside the vocabulary"),
        ({"logit_bias": {1: float("nan")}}, "logit_bias of 1 is nan"),
        ({"presence_penalty": float("inf")}, "presence_penalty is inf"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_means_nothing_is_refused_at_once(model, options, message):
    for call in (model.generate, model.stream, model.astream):
        with pytest.raises(RequestError, match=message):
            call(PROMPT, **options)
    with pytest.raises(RequestError, match=message):
        model.generate_n(PROMPT, 2, **options)


def test_every_option_reaches_the_request():
    constraint = Evens(4, 0)
    options: AnswerOptions = {
        "max_tokens": 3, "temperature": 0.5, "top_k": 4, "top_p": 0.9, "min_p": 0.1,
        "repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.3,
        "logit_bias": {1: 1.0}, "seed": 7, "stop": "end", "logprobs": 2,
        "constraint": constraint, "progress": print,
    }  # fmt: skip
    assert set(options) == set(AnswerOptions.__annotations__)
    request = make_request([1], frozenset([2]), options)
    for name, value in options.items():
        holder = request if hasattr(request, name) else request.sampling
        assert getattr(holder, name) == (("end",) if name == "stop" else value)
    assert request.stop_ids == {2}


def test_errors_are_found_where_users_look():
    assert issubclass(edgemoe.BudgetError, edgemoe.EdgeMoEError)
    for name in edgemoe.__all__:
        assert getattr(edgemoe, name) is not None
