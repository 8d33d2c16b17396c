"""How a model's authors want tokens drawn, by hand."""

from __future__ import annotations

import json
import shutil

import pytest

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine.defaults import (
    choose_sampling,
    describe_sampling,
    read_sampling_defaults,
    sampling_defaults,
)
from edgemoe.errors import RequestError, StoreError
from edgemoe.quant import BitPlan

QWEN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1, 2]}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, {}),
        ({"eos_token_id": 3, "transformers_version": "5"}, {}),
        (QWEN, {"temperature": 0.6, "top_k": 20, "top_p": 0.95}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"top_k": -1, "min_p": None, "repetition_penalty": 1.05}, {"top_k": 0, "repetition_penalty": 1.05}),
    ],
)
def test_values_of_a_generation_config(settings, found):
    assert sampling_defaults(settings) == found


def test_what_is_said_comes_first_then_the_model_then_the_command():
    own, fallback = sampling_defaults(QWEN), {"temperature": 0.7, "top_p": 0.9}
    assert choose_sampling({}, own, fallback) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert choose_sampling({"temperature": 0.0}, own, fallback)["temperature"] == 0.0
    assert choose_sampling({"seed": 1}, {}, fallback) == {**fallback, "seed": 1}
    assert choose_sampling({}, {"repetition_penalty": 1.1}, fallback)["temperature"] == 0.7
    assert choose_sampling({}, {"temperature": 0.0}, fallback) == {"temperature": 0.0}


def test_words():
    assert describe_sampling({"temperature": 0.6, "top_k": 20, "seed": 3}) == "temperature 0.6, top_k 20"
    assert describe_sampling({"temperature": 0.0, "top_k": 20}) == "the likeliest token each time"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"temperature": "hot"}', "temperature is 'hot'; it must be a number"),
        ('{"top_p": -1}', "top_p is -1; it must be between 0 and 1"),
        ('{"do_sample": true, "temperature": true}', "temperature is True"),
        ('{"top_k": Infinity}', "top_k is inf"),
        ("[1]", "is not a JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(StoreError, match=r"generation_config\.json") as caught:
        read_sampling_defaults(tmp_path)
    assert message in str(caught.value)


def test_a_file_that_is_not_there_says_nothing(tmp_path):
    assert read_sampling_defaults(tmp_path) == {}


def store_with(settings, checkpoint, folder):
    shutil.copytree(checkpoint, folder / "checkpoint", dirs_exist_ok=True)
    (folder / "checkpoint" / "generation_config.json").write_text(json.dumps(settings))
    convert(folder / "checkpoint", folder / "store", BitPlan.uniform("q4", "q8"), overwrite=True)
    return folder / "store"


def test_answers_are_drawn_as_the_authors_say_unless_the_caller_does(tiny_checkpoint, tmp_path):
    prompt, most = [5, 6, 7], 12
    store = store_with({**QWEN, "temperature": 3.0}, tiny_checkpoint, tmp_path)
    with edgemoe.load(store, "2GiB") as model:
        assert model.sampling_defaults["temperature"] == 3.0
        drawn = model.generate(prompt, max_tokens=most, seed=4).token_ids
        asked = {"temperature": 3.0, "top_k": 20, "top_p": 0.95}
        assert drawn == model.generate(prompt, max_tokens=most, seed=4, **asked).token_ids
        greedy = model.generate(prompt, max_tokens=most, temperature=0.0).token_ids
    assert drawn != greedy
    store = store_with({"do_sample": False, "temperature": 3.0}, tiny_checkpoint, tmp_path)
    with edgemoe.load(store, "2GiB") as model:
        assert model.generate(prompt, max_tokens=most).token_ids == greedy


def test_suppressed_tokens_are_not_drawn(tiny_checkpoint, tmp_path):
    """As transformers and vLLM follow Gemma 4's list of closing marks of images and sounds."""
    prompt, most = [5, 6, 7], 12
    with edgemoe.load(store_with({}, tiny_checkpoint, tmp_path), "2GiB") as model:
        free = model.generate(prompt, max_tokens=most, logprobs=2)
        first, second = (token for token, _ in free.logprobs[0].top)
    store = store_with({"suppress_tokens": [first, -1, 10**9]}, tiny_checkpoint, tmp_path)
    with edgemoe.load(store, "2GiB") as model:
        held = model.generate(prompt, max_tokens=most, logprobs=1)
        assert held.token_ids[0] == second
        assert first not in held.token_ids
        assert held.logprobs[0].top == free.logprobs[0].top[:1]  # the model's own distribution
        warm = {"temperature": 100.0, "seed": 1, "logit_bias": {first: 1000}}
        assert first not in model.generate(prompt, max_tokens=most, **warm).token_ids
    store = store_with({"begin_suppress_tokens": [first]}, tiny_checkpoint, tmp_path)
    with edgemoe.load(store, "2GiB") as model:
        liked = model.generate(prompt, max_tokens=most, logit_bias={first: 1000}).token_ids
    assert liked == [second] + [first] * (most - 1)


def test_wrong_values_are_errors_of_a_request():
    with pytest.raises(RequestError):
        sampling_defaults([])
