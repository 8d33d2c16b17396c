"""What is no text: refused where whoever sent it can send it otherwise, told of in words where nobody can."""

from __future__ import annotations

import json

import pytest

from edgemoe.server.anthropic.request import read_messages_request
from edgemoe.server.openai.chat_request import read_chat
from edgemoe.server.openai.responses_request import read_responses
from edgemoe.server.options import Limits

LIMITS = Limits()
SAY = {"role": "user", "content": "Look."}
PNG = "data:image/png;base64,AAAA"
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
ITEM_IMAGE = {"type": "input_image", "image_url": PNG, "detail": "auto"}
BLOCK_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
SHOWN = "[image: left out, this model reads text only]"


def chat(*messages):
    return read_chat({"model": "demo", "messages": list(messages)}, LIMITS).messages


def responses(*items):
    return read_responses({"model": "demo", "input": list(items)}, LIMITS).messages


def messages(*turns):
    body = {"model": "demo", "max_tokens": 4, "messages": list(turns)}
    return read_messages_request(body, LIMITS, needs_max_tokens=True).messages


def call(call_id="1"):
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}


def used(call_id="1"):
    block = {"type": "tool_use", "id": call_id, "name": "look", "input": {}}
    return {"role": "assistant", "content": [block]}


def result(*content, call_id="1", **more):
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(content), **more}


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [CHAT_IMAGE]}]},
            "image: messages[0].content[0].type 'image_url'",
        ),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [ITEM_IMAGE]}]},
            "image: input[0].content[0].type 'input_image'",
        ),
        (
            "/v1/messages",
            {"max_tokens": 4, "messages": [{"role": "user", "content": [PDF, BLOCK_IMAGE]}]},
            "PDF: messages[0].content[0].type 'document'",
        ),
    ],
)
def test_an_image_that_was_just_sent_is_refused_by_name(http, path, body, named):
    answer = http.post(path, json={"model": "demo"} | body)
    assert answer.status_code == 400
    assert answer.headers["x-should-retry"] == "false"
    message = answer.json()["error"]["message"]
    why = "is not supported: the models of this server read text only"
    assert message == f"Could not process {named} {why}"  # as Claude Code knows it


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {"role": "user", "content": [CHAT_IMAGE]},
                    {"role": "assistant", "content": None, "tool_calls": [call()]},
                    {"role": "tool", "tool_call_id": "1", "content": [CHAT_IMAGE]},
                ]
            },
        ),
        (
            "/v1/responses",
            {
                "input": [
                    {"role": "user", "content": [ITEM_IMAGE]},
                    {"type": "function_call", "call_id": "1", "name": "view_image", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "1", "output": [ITEM_IMAGE]},
                ]
            },
        ),
        (
            "/v1/messages",
            {
                "max_tokens": 4,
                "messages": [
                    {"role": "user", "content": [BLOCK_IMAGE]},
                    used(),
                    {"role": "user", "content": [result(BLOCK_IMAGE)]},
                ],
            },
        ),
    ],
)
def test_images_that_nobody_can_take_back_do_not_end_a_conversation(http, path, body):
    assert http.post(path, json={"model": "demo"} | body).status_code == 200


def test_the_model_is_told_that_there_was_something():
    told = chat({"role": "user", "content": [{"type": "text", "text": "See "}, CHAT_IMAGE]}, SAY)
    assert told[0]["content"] == f"See {SHOWN}"
    output = [{"type": "input_text", "text": "done "}, ITEM_IMAGE]
    told = responses(
        SAY,
        {"type": "function_call", "call_id": "1", "name": "view_image", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": output},
    )
    assert told[-1]["content"] == f"done {SHOWN}"
    told = messages(SAY, used(), {"role": "user", "content": [result(BLOCK_IMAGE), PDF]})
    assert [turn["content"] for turn in told[2:]] == [
        SHOWN,
        "[document: left out, this model reads text only]",
    ]
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert chat({"role": "user", "content": [audio]}, SAY)[0]["content"].startswith("[audio: ")


def test_documents_that_are_text_are_read():
    source = {"type": "text", "media_type": "text/plain", "data": "Foxes are red."}
    document = {"type": "document", "title": "Foxes", "context": "From a book", "source": source}
    (told,) = messages({"role": "user", "content": [document, {"type": "text", "text": "So?"}]})
    assert told["content"] == "Foxes\nFrom a book\nFoxes are red.\nSo?"
    parts = {"type": "content", "content": [{"type": "text", "text": "Red."}]}
    found = {"type": "search_result", "source": "http://a", "title": "T", "content": parts["content"]}
    reference = {"type": "tool_reference", "tool_name": "look"}
    told = messages(
        SAY,
        used(),
        {"role": "user", "content": [result(found, {"type": "document", "source": parts}, reference)]},
    )
    assert told[2]["content"] == "T\nhttp://a\nRed.Red.look"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "hologram"},
        {"type": "document", "source": {"type": "text", "data": 5}},
        {"type": "search_result", "title": 5},
        {"type": "search_result", "content": [{}] * 5000},
        {"type": "text", "text": ["no"]},
    ],
)
def test_parts_that_nobody_knows_are_refused_wherever_they_are(http, part):
    turns = [SAY, used(), {"role": "user", "content": [result(part)]}]
    answer = http.post("/v1/messages", json={"model": "demo", "max_tokens": 1, "messages": turns})
    assert answer.status_code == 400
    assert "messages[2].content[0].content[0]" in answer.json()["error"]["message"]


def test_what_tools_of_other_servers_left_is_left_out():
    told = messages(
        SAY,
        {
            "role": "assistant",
            "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {"type": "text", "text": "Red."},
            ],
        },
        SAY,
    )
    assert told[1] == {"role": "assistant", "content": "Red."}
    told = responses(SAY, {"type": "web_search_call", "id": "w", "status": "completed"}, SAY)
    assert [turn["role"] for turn in told] == ["user", "user"]


def test_calls_of_other_kinds_are_calls():
    custom = {"id": "1", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    told = chat(SAY, {"role": "assistant", "tool_calls": [custom]}, SAY)
    assert told[1]["tool_calls"][0]["function"] == {"name": "patch", "arguments": {"input": "*** Begin"}}
    older = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"a": 1}'}}
    told = chat(SAY, older, {"role": "function", "name": "look", "content": "x"})
    assert told[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": {"a": 1}}
    told = responses(
        SAY,
        {"type": "custom_tool_call", "call_id": "1", "name": "patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "ok"},
    )
    assert told[1]["tool_calls"][0]["function"] == {"name": "patch", "arguments": {"input": "*** Begin"}}
    assert told[2] == {"role": "tool", "content": "ok", "tool_call_id": "1"}


def test_deferred_tools_are_told_of_where_a_search_found_them(http):
    """They are not at the front, so that the prompt begins as in the turn before."""
    schema = {"type": "object", "properties": {"url": {"enum": ["http://a"]}}, "required": ["url"]}
    tools = [
        {"name": "search", "input_schema": {"type": "object"}},
        {"name": "fetch", "description": "Fetches.", "input_schema": schema, "defer_loading": True},
        {"name": "other", "input_schema": schema, "defer_loading": True},
    ]
    turns = [
        SAY,
        used(),
        {"role": "user", "content": [result({"type": "tool_reference", "tool_name": "fetch"})]},
    ]
    ask = {"model": "demo", "max_tokens": 80, "temperature": 0, "tools": tools}
    asked = read_messages_request(ask | {"messages": turns}, LIMITS, needs_max_tokens=True)
    assert [tool["function"]["name"] for tool in asked.tools] == ["search", "fetch"]
    assert asked.untold_tools == {"fetch"}
    first, *lines, last = asked.messages[2]["content"].splitlines()
    assert (first, last) == ("<functions>", "</functions>")
    assert [json.loads(line[len("<function>") : -len("</function>")]) for line in lines] == [
        {"name": "fetch", "description": "Fetches.", "parameters": schema}
    ]
    forced = ask | {"messages": turns, "tool_choice": {"type": "tool", "name": "fetch"}}
    (block,) = http.post("/v1/messages", json=forced).json()["content"]
    assert (block["name"], block["input"]) == ("fetch", {"url": "http://a"})
    early = ask | {"messages": turns[:1]}
    counts = [
        http.post("/v1/messages/count_tokens", json=early | {"tools": shown}).json()["input_tokens"]
        for shown in (tools, tools[:1], [*tools, {"type": "tool_search_tool_bm25_20251119", "name": "s"}])
    ]
    assert counts[0] == counts[1] < counts[2]  # nobody here runs the last one's search
    early |= {"tool_choice": {"type": "tool", "name": "other"}}
    assert "not among the tools" in http.post("/v1/messages", json=early).json()["error"]["message"]
