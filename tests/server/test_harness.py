"""lm-evaluation-harness over HTTP gives what the model gives in the same process."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from helpers.live_server import DEMO_STORE, EXTRA_BYTES

import edgemoe
from edgemoe.engine.machine import resident_bytes

TEXT = "Once upon a time there was a fox"


@pytest.fixture(scope="module")
def model():
    with edgemoe.load(DEMO_STORE, resident_bytes() + EXTRA_BYTES) as loaded:
        yield loaded


def logprobs_of(model, ids):
    logits = model.logits(ids).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return [float(logits[place, token]) for place, token in enumerate(ids[1:])]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_an_echoed_prompt_has_its_logprobs(server, model, max_tokens):
    ids = model.tokenizer.encode(TEXT)
    body = {"model": "demo", "prompt": [ids], "max_tokens": max_tokens, "logprobs": 1, "echo": True,
            "temperature": 0}  # fmt: skip
    (choice,) = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()["choices"]
    told = choice["logprobs"]
    assert (
        len(told["token_logprobs"])
        == len(told["top_logprobs"])
        == len(told["tokens"])
        == len(ids) + max_tokens
    )
    assert told["token_logprobs"][0] is None
    np.testing.assert_allclose(told["token_logprobs"][1 : len(ids)], logprobs_of(model, ids), atol=1e-6)
    assert choice["text"].startswith(TEXT)


def test_an_echo_without_logprobs_is_the_text(openai_client):
    done = openai_client.completions.create(model="demo", prompt=TEXT, max_tokens=3, temperature=0, echo=True)
    plain = openai_client.completions.create(model="demo", prompt=TEXT, max_tokens=3, temperature=0)
    assert done.choices[0].text == TEXT + plain.choices[0].text


def test_the_harness_scores_over_http_as_in_the_process(server, model):
    pytest.importorskip("tenacity")  # of lm-eval[api]
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    harness = completions.LocalCompletionsAPI(
        model="demo",
        base_url=f"{server.url}/v1/completions",
        tokenizer_backend="huggingface",
        tokenizer=str(DEMO_STORE),
        max_length=256,
    )
    asked = [("Once upon a time", " there was a fox"), ("The old", " bear")]
    requests = [instance("loglikelihood", {}, pair, place) for place, pair in enumerate(asked)]
    found = harness.loglikelihood(requests, disable_tqdm=True)
    encode = model.tokenizer.encode
    for (context, answer), (score, _) in zip(asked, found, strict=True):
        wanted = sum(logprobs_of(model, encode(context + answer))[len(encode(context)) - 1 :])
        assert abs(score - wanted) < 1e-5


def test_the_harness_generates_by_chat(server):
    pytest.importorskip("tenacity")  # of lm-eval[api]
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    harness = completions.LocalChatCompletion(model="demo", base_url=f"{server.url}/v1/chat/completions")
    asked = [{"role": "user", "content": "Tell me a story."}]
    settings = {"until": ["\n\n"], "max_gen_toks": 8}

    from lm_eval.models.api_models import JsonChatStr

    request = instance("generate_until", {}, (JsonChatStr(json.dumps(asked)), settings), 0)
    (text,) = harness.generate_until([request], disable_tqdm=True)
    assert text
