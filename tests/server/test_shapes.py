"""Bodies and events, not as clients repair them but as they are sent, by the types of the official clients,
and by what the Open Responses specification demands: its cases but the one with an image.
"""

from __future__ import annotations

import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from server.test_constraints import TOOLS, WEATHER

SAY = [{"role": "user", "content": "Tell me of the fox."}]
FUNCTION = {"type": "function", "name": "get_weather", "description": "Weather.", "parameters": WEATHER}
# What a response must have, null or not.
REQUIRED = """id object created_at completed_at status incomplete_details model previous_response_id
instructions output error tools tool_choice truncation parallel_tool_calls text top_p presence_penalty
frequency_penalty top_logprobs temperature reasoning user usage max_output_tokens max_tool_calls store
background service_tier metadata safety_identifier prompt_cache_key"""
ASKS_TOOL = {"input": SAY, "tools": [FUNCTION], "tool_choice": "required", "text": {}}
# Ends the answer soon, as a model that knows when to stop would.
BRIEF = {"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["yes", "no"]}}}


def events_of(text):
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def strictly(kind, value):
    """A value by a client's type, without turning one type into another."""
    TypeAdapter(kind).validate_json(json.dumps(value), strict=True)


OPEN_RESPONSES = {
    "basic": {"input": SAY},
    "streaming": {"input": SAY, "stream": True},
    "system": {"input": [{"type": "message", "role": "system", "content": "You are a pirate."}, *SAY]},
    "tool": ASKS_TOOL | {"text": {"verbosity": "low"}},
    "tool streaming": ASKS_TOOL | {"stream": True},
    "turns": {
        "input": [
            *SAY,
            {"type": "message", "role": "assistant", "content": "He ran."},
            {"type": "message", "role": "user", "content": "Where to?"},
        ]
    },
}


@pytest.mark.parametrize("case", OPEN_RESPONSES)
def test_open_responses(http, case):
    body = {"model": "demo", "temperature": 0, "text": BRIEF} | OPEN_RESPONSES[case]
    answer = http.post("/v1/responses", json=body)
    response = answer.json() if not body.get("stream") else events_of(answer.text)[-1]["response"]
    assert set(REQUIRED.split()) <= set(response)
    assert response["status"] == "completed"
    assert response["completed_at"] >= response["created_at"]
    assert response["text"]["format"]
    strictly(Response, response)
    wanted = "function_call" if "tools" in body else "message"
    assert [item["type"] for item in response["output"]] == [wanted]
    for tool in response["tools"]:
        assert {"name", "description", "parameters", "strict"} <= set(tool)
    if not body.get("stream"):
        return
    events = events_of(answer.text)
    for event in events:
        strictly(ResponseStreamEvent, event)
    named = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert named == [event["type"] for event in events]
    kinds = {(event["type"], event.get("item", {}).get("type")) for event in events}
    assert {("response.output_item.added", wanted), ("response.output_item.done", wanted)} <= kinds
    if wanted == "function_call":
        assert ("response.function_call_arguments.delta", None) in kinds
        assert ("response.function_call_arguments.done", None) in kinds


@pytest.mark.parametrize(
    "extra", [{}, {"logprobs": True, "top_logprobs": 2}, {"tools": TOOLS, "tool_choice": "required"}]
)
def test_chat(http, extra):
    body = {"model": "demo", "messages": SAY, "max_tokens": 60} | extra
    strictly(ChatCompletion, http.post("/v1/chat/completions", json=body).json())
    body |= {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    chunks = events_of(http.post("/v1/chat/completions", json=body).text)
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
    assert len({chunk["id"] for chunk in chunks}) == 1
    finish = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert finish[-1] is not None
    assert set(finish[:-1]) == {None}
    assert chunks[-1]["choices"] == []


@pytest.mark.parametrize(
    ("path", "about"), [("/v1/chat/completions", {"messages": SAY}), ("/v1/completions", {"prompt": "Once"})]
)
@pytest.mark.parametrize("extra", [{}, {"n": 2}, {"logprobs": 1}])
def test_usage_in_each_chunk(http, path, about, extra):
    """As vLLM has it for those who ask: programs that measure count tokens by it."""
    if extra.get("logprobs") and "messages" in about:
        extra = {"logprobs": True}
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"model": "demo", "max_tokens": 4, "temperature": 0, "stream": True, "stream_options": options}
    *chunks, last = events_of(http.post(path, json=body | about | extra).text)
    num_prompt, num_choices = last["usage"]["prompt_tokens"], extra.get("n", 1)
    assert last["usage"]["completion_tokens"] == 4 * num_choices
    for choice in range(num_choices):
        told = [chunk["usage"] for chunk in chunks if chunk["choices"][0]["index"] == choice]
        counts = [usage["completion_tokens"] for usage in told if usage is not None]
        assert counts == sorted(counts)
        assert set(counts) == {1, 2, 3, 4}
        assert {usage["prompt_tokens"] for usage in told if usage is not None} == {num_prompt}
        assert all(usage["total_tokens"] == num_prompt + count
                   for usage, count in zip(filter(None, told), counts, strict=True))  # fmt: skip
    plain = body | about | {"stream_options": {"include_usage": True, "continuous_usage_stats": False}}
    *chunks, _ = events_of(http.post(path, json=plain).text)
    assert {chunk["usage"] for chunk in chunks} == {None}
    wrong = body | about | {"stream_options": options | {"continuous_usage_stats": "yes"}}
    assert "stream_options.continuous_usage_stats" in http.post(path, json=wrong).json()["error"]["message"]


def test_completions_and_models(http):
    body = {"model": "demo", "prompt": "Once", "max_tokens": 3, "logprobs": 1}
    strictly(Completion, http.post("/v1/completions", json=body).json())
    for chunk in events_of(http.post("/v1/completions", json=body | {"stream": True}).text):
        strictly(Completion, chunk | {"choices": [c | {"finish_reason": "stop"} for c in chunk["choices"]]})
    for model in http.get("/v1/models").json()["data"]:
        strictly(Model, model)


@pytest.mark.parametrize(
    "extra", [{}, {"tools": [{"name": "f", "input_schema": WEATHER}], "tool_choice": {"type": "any"}}]
)
def test_messages(http, extra):
    body = {"model": "demo", "messages": SAY, "max_tokens": 60} | extra
    strictly(Message, http.post("/v1/messages", json=body).json())
    events = events_of(http.post("/v1/messages", json=body | {"stream": True}).text)
    for event in events:
        if event["type"] != "ping":
            strictly(RawMessageStreamEvent, event)
    assert "timings" not in json.dumps(events)


PARAMETERS = {
    "type": "object",
    "properties": {
        "age": {"enum": [1, 2]},
        "day": {"type": "string", "format": "date"},
        "word": {"type": "string", "pattern": "^[a-z]{2,3}$"},
        "size": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}]},
        "kind": {"$ref": "#/$defs/kind"},
    },
    "required": ["age", "day", "word", "size", "kind"],
    "$defs": {"kind": {"enum": ["red"]}},
    "additionalProperties": False,
}
LONG_NAME = "animals.find-a_fox" + "x" * 46  # 64 characters, with all that names may have
NAMED = {"type": "function", "function": {"name": LONG_NAME}}
FORCED = {
    "tools": [
        {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
        for name in ("f", LONG_NAME)
    ],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}},
    "max_tokens": 200,
}


@pytest.mark.parametrize(
    "extra",
    [
        {"n": 3, "seed": 1, "temperature": 1},
        {"n": 2, "logprobs": True, "top_logprobs": 3},
        {"stop": ["upon a ti"], "logprobs": True},
        FORCED | {"logprobs": True},
        {"messages": [{"role": "user", "content": "\U0001f600 e\u0301 \u202e\u0000\u2028 <|im_end|>"}]},
    ],
)
def test_streamed_choices_are_the_whole_ones(http, extra):
    """Each choice's pieces, in order, are what is told at once; nothing of a call stands in its logprobs."""
    body = {"model": "demo", "messages": SAY, "max_tokens": 8, "temperature": 0} | extra
    whole = http.post("/v1/chat/completions", json=body).json()
    strictly(ChatCompletion, whole)
    chunks = events_of(http.post("/v1/chat/completions", json=body | {"stream": True}).text)
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
    for choice in whole["choices"]:
        parts = [p for chunk in chunks for p in chunk["choices"] if p["index"] == choice["index"]]
        text = "".join(part["delta"].get("content") or "" for part in parts)
        assert text == (choice["message"]["content"] or "")
        assert [part["finish_reason"] for part in parts if part["finish_reason"]] == [choice["finish_reason"]]
        told = [entry["token"] for part in parts for entry in (part["logprobs"] or {}).get("content", ())]
        assert told == [entry["token"] for entry in (choice["logprobs"] or {}).get("content", ())]
        for call in choice["message"].get("tool_calls", ()):
            assert call["function"]["name"] == LONG_NAME
            assert json.loads(call["function"]["arguments"]).keys() == PARAMETERS["properties"].keys()
            assert told == []


def test_streamed_completions_count_on_where_their_tokens_stand(http):
    body = {"model": "demo", "prompt": ["Once", "He"], "max_tokens": 4, "logprobs": 1, "temperature": 0}
    whole = http.post("/v1/completions", json=body).json()["choices"]
    chunks = events_of(http.post("/v1/completions", json=body | {"stream": True}).text)
    for choice in whole:
        logprobs = [
            c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["index"] == choice["index"]
        ]
        offsets = [offset for part in logprobs if part for offset in part["text_offset"]]
        assert offsets == choice["logprobs"]["text_offset"]
