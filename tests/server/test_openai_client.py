"""The official OpenAI client against a running server."""

from __future__ import annotations

import asyncio

import openai
import pytest

ASK = [{"role": "user", "content": "Tell me a story about a fox."}]


def test_whole_and_streamed_answers_are_the_same(openai_client):
    whole = openai_client.chat.completions.create(model="demo", messages=ASK, max_tokens=24, temperature=0)
    chunks = list(
        openai_client.chat.completions.create(
            model="demo",
            messages=ASK,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert text
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 24
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_the_chunk_that_ends_an_answer_has_no_content(openai_client):
    stream = openai_client.chat.completions.create(model="demo", messages=ASK, max_tokens=3, stream=True)
    last = [chunk for chunk in stream if chunk.choices][-1]
    assert last.choices[0].finish_reason == "length"
    assert last.choices[0].delta.content is None
    assert last.usage is None


def test_several_answers_differ_and_come_again_with_their_seed(openai_client):
    def ask():
        done = openai_client.chat.completions.create(
            model="demo", messages=ASK, max_tokens=12, temperature=1.0, seed=7, n=3
        )
        return [choice.message.content for choice in done.choices]

    first = ask()
    assert len(set(first)) == 3
    assert ask() == first


def test_a_stop_text_ends_the_answer_before_it(openai_client):
    plain = openai_client.chat.completions.create(model="demo", messages=ASK, max_tokens=24, temperature=0)
    text = plain.choices[0].message.content
    stop = text[8:12]
    done = openai_client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=24, temperature=0, stop=[stop, "never there"]
    )
    assert done.choices[0].message.content == text[: text.index(stop)]
    assert done.choices[0].finish_reason == "stop"


def test_completions_take_texts_and_tokens(openai_client):
    done = openai_client.completions.create(
        model="demo", prompt=["Once upon a time", "The old fox"], max_tokens=8, temperature=0
    )
    assert [choice.index for choice in done.choices] == [0, 1]
    assert all(choice.text.startswith((" ", ",")) for choice in done.choices)  # spaces are not lost
    again = openai_client.completions.create(
        model="demo", prompt="Once upon a time", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in again) == done.choices[0].text


def test_the_async_client_streams(server):
    async def ask():
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        async with client:
            stream = await client.chat.completions.create(
                model="demo", messages=ASK, max_tokens=5, stream=True, temperature=0
            )
            return [chunk async for chunk in stream]

    assert len(asyncio.run(ask())) >= 5


def test_models_are_listed_with_their_context(openai_client):
    (model,) = openai_client.models.list().data
    assert model.id == "demo"
    assert model.meta["n_ctx"] == 1024
    assert openai_client.models.retrieve("demo").id == "demo"


def test_an_unknown_model_is_not_found(openai_client):
    with pytest.raises(openai.NotFoundError, match="this server has demo"):
        openai_client.chat.completions.create(model="other", messages=ASK)


def test_a_prompt_that_is_too_long_has_openais_code(openai_client):
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1024 tokens") as caught:
        openai_client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "a " * 3000}]
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_embeddings_are_refused_by_name(openai_client):
    with pytest.raises(openai.BadRequestError, match="embeddings are not supported"):
        openai_client.embeddings.create(model="demo", input="x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "hot"),
        ("top_p", 3),
        ("n", 0),
        ("stop", [1]),
        ("max_tokens", -7),
        ("logit_bias", {"x": 1}),
        ("messages", [{"role": "clown", "content": "x"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]),
        ("tool_choice", "required"),
        ("mirostat", 2),
        ("modalities", ["audio"]),
        ("chat_template_kwargs", {"messages": []}),
    ],
)
def test_a_wrong_field_is_named(http, field, value):
    body = {"model": "demo", "messages": ASK, "max_tokens": 2} | {field: value}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


def test_fields_that_change_nothing_are_accepted_and_named(http):
    body = {"model": "demo", "messages": ASK, "max_tokens": 2, "user": "me", "store": True, "newest_field": 1}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-edgemoe-ignored-fields"] == "newest_field"
