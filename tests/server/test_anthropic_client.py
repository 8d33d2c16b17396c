"""The official Anthropic client against a running server."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

GREEDY = {"temperature": 0}  # this client has no such argument
ASK = [{"role": "user", "content": "Tell me a story about a fox."}]


def test_whole_and_streamed_messages_are_the_same(anthropic_client):
    whole = anthropic_client.messages.create(model="demo", max_tokens=24, messages=ASK, extra_body=GREEDY)
    with anthropic_client.messages.stream(
        model="demo", max_tokens=24, messages=ASK, extra_body=GREEDY
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert whole.stop_reason == final.stop_reason == "max_tokens"
    assert whole.usage.input_tokens + whole.usage.cache_read_input_tokens > 10
    assert final.usage.output_tokens == 24
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_a_stop_sequence_is_told(anthropic_client):
    whole = anthropic_client.messages.create(model="demo", max_tokens=24, messages=ASK, extra_body=GREEDY)
    stop = whole.content[0].text[8:12]
    done = anthropic_client.messages.create(
        model="demo", max_tokens=24, messages=ASK, extra_body=GREEDY, stop_sequences=["never there", stop]
    )
    assert done.stop_reason == "stop_sequence"
    assert done.stop_sequence == stop


def test_counting_includes_system_and_tools(anthropic_client):
    count = anthropic_client.messages.count_tokens
    plain = count(model="demo", messages=ASK).input_tokens
    assert count(model="demo", messages=ASK, system="Be brief and kind.").input_tokens > plain


def test_the_async_client_streams(server):
    async def ask():
        client = anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0)
        async with client, client.messages.stream(model="demo", max_tokens=5, messages=ASK) as stream:
            return [text async for text in stream.text_stream]

    assert asyncio.run(ask())


def test_a_prompt_that_is_too_long_has_anthropics_words(anthropic_client):
    long = [{"role": "user", "content": "a " * 3000}]
    with pytest.raises(
        anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 1024 maximum"
    ) as caught:
        anthropic_client.messages.create(model="demo", max_tokens=10, messages=long)
    assert caught.value.body["error"]["type"] == "invalid_request_error"


def test_an_answer_longer_than_the_context_is_cut(http):
    done = http.post("/v1/messages", json={"model": "demo", "max_tokens": 32000, "messages": ASK}).json()
    assert done["stop_reason"] in {"max_tokens", "end_turn"}
    assert 0 < done["usage"]["output_tokens"] < 1024


def test_a_billing_line_that_changes_is_no_part_of_the_prompt(anthropic_client):
    count = anthropic_client.messages.count_tokens
    system = "x-anthropic-billing-header: cc_version=2; cch=a1b2c;\nYou are a helper."
    assert (
        count(model="demo", messages=ASK, system=system).input_tokens
        == count(model="demo", messages=ASK, system="You are a helper.").input_tokens
    )


def test_what_agents_send_is_taken(http):
    body = {
        "model": "demo",
        "max_tokens": 4,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "x"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [
            {"name": "read", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "foreign"},
                    {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}},
                ],
            },
            {"role": "system", "content": "A reminder."},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [{"type": "text", "text": "ok"}],
                    },
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
    }
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "unknown-beta-2030"}
    answer = http.post("/v1/messages?beta=true", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"][0]["type"] == "text"


def test_errors_have_anthropics_shape(http):
    answer = http.post("/v1/messages", json={"model": "demo", "messages": ASK})
    assert answer.status_code == 400
    body = answer.json()
    assert body["type"] == "error"
    assert "max_tokens" in body["error"]["message"]
    assert body["request_id"] == answer.headers["request-id"]
