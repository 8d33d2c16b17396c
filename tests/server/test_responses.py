"""OpenAI's responses by its own client: what llama.cpp's and Open Responses' tests ask of a server."""

from __future__ import annotations

import json

import openai
import pytest
from server.test_constraints import WEATHER, assert_weather

from edgemoe.server.openai.responses_request import read_responses
from edgemoe.server.options import Limits

ASK = "Tell me a story about a fox."
TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}


def test_streamed_and_whole_responses_are_the_same(openai_client):
    whole = openai_client.responses.create(model="demo", input=ASK, max_output_tokens=20, temperature=0)
    assert whole.id.startswith("resp_")
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.output[0].id.startswith("msg_")
    events = list(
        openai_client.responses.create(
            model="demo", input=ASK, max_output_tokens=20, temperature=0, stream=True
        )
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    order = ["response.output_item.added", "response.content_part.added", "response.output_text.delta",
             "response.output_text.done", "response.content_part.done", "response.output_item.done",
             "response.incomplete"]  # fmt: skip
    assert sorted(order, key=kinds.index) == order
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    text = "".join(event.delta for event in deltas)
    final = events[-1].response
    assert text == final.output_text == whole.output_text
    assert {event.item_id for event in deltas} == {final.output[0].id}
    assert final.usage.output_tokens == 20


@pytest.mark.parametrize("stream", [False, True])
def test_calls_are_items(openai_client, stream):
    answer = openai_client.responses.create(
        model="demo", input=ASK, tools=[TOOL], tool_choice="required", max_output_tokens=100, stream=stream
    )
    if stream:
        events = list(answer)
        deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        answer = events[-1].response
        assert "".join(deltas) == answer.output[0].arguments
    (call,) = answer.output
    assert answer.status == "completed"
    assert call.type == "function_call"
    assert_weather(json.loads(call.arguments))
    again = openai_client.responses.create(
        model="demo",
        input=[
            {"role": "user", "content": ASK},
            call.model_dump(exclude_none=True),
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": [{"type": "input_text", "text": "Sun"}],
            },
        ],
        tools=[TOOL],
        max_output_tokens=4,
    )
    assert again.usage.input_tokens > 20


def test_functions_can_be_in_a_namespace(openai_client):
    space = {"type": "namespace", "name": "sky", "description": "Of the sky.", "tools": [TOOL]}
    answer = openai_client.responses.create(
        model="demo", input=ASK, tools=[space], tool_choice="required", max_output_tokens=100, stream=True
    )
    (call,) = list(answer)[-1].response.output
    assert (call.namespace, call.name) == ("sky", "get_weather")
    assert_weather(json.loads(call.arguments))
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sun"}
    messages = read_responses(
        {"model": "demo", "input": [{"role": "user", "content": ASK}, call.model_dump(), result]}, Limits()
    ).messages
    assert messages[1]["tool_calls"][0]["function"]["name"] == "sky__get_weather"


def test_text_can_follow_a_schema(openai_client):
    form = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER}}
    done = openai_client.responses.create(model="demo", input=ASK, text=form, max_output_tokens=60)
    assert_weather(json.loads(done.output_text))


def test_tools_that_are_no_functions_are_left_out(openai_client):
    done = openai_client.responses.create(
        model="demo",
        instructions="Be brief.",
        input=[{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Hi"}]},
               {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASK}]}],
        tools=[TOOL, {"type": "web_search"}, {"type": "custom", "name": "x"}],
        max_output_tokens=3,
        store=False,
        include=["reasoning.encrypted_content"],
    )  # fmt: skip
    assert done.output_text


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"conversation": "conv_1"}, "conversation is not supported"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt is not supported"),
        ({"moderation": {"model": "omni"}}, "moderation is not supported"),
        ({"background": True, "store": False}, "background: needs store"),
    ],
)
def test_what_is_not_there_is_refused_by_name(openai_client, extra, says):
    with pytest.raises(openai.BadRequestError, match=says):
        openai_client.responses.create(model="demo", input=ASK, **extra)
