"""Thoughts, text and calls of one answer in every protocol, without a model."""

from __future__ import annotations

import asyncio
import json

import pytest

from edgemoe.server.anthropic.answer import MessageEncoder, whole_body
from edgemoe.server.dialects import DIALECTS
from edgemoe.server.events import Finish, Reasoning, Text, TokenChance, ToolOpen
from edgemoe.server.local_model import End, Token
from edgemoe.server.openai.chat_answer import ChatEncoder, chat_body
from edgemoe.server.openai.responses_answer import ResponsesEncoder
from edgemoe.server.text_memory import Written
from edgemoe.server.whole import collect
from edgemoe.server.writer import AnswerWriter

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
WRITTEN = (
    '<think>\nhm hm\n</think>\n\nI call.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
)


def events_of(text, *, stops=(), reason="stop", tools=TOOLS, **options):
    """The events of an answer of one token per character."""
    reader = DIALECTS["qwen3-hermes"].reader("", tools, takes_calls=bool(tools))
    writer = AnswerWriter(reader, stops, Written("", [1, 2, 3]), **options)
    out = []
    for number, letter in enumerate(text):
        out += writer.push(Token(letter, number, TokenChance(letter.encode(), -0.5)))
        if writer.is_done:
            break
    return out + writer.finish(End(reason))


def lines_of(encoder, events):
    lines = [*encoder.opening(), *(line for e in events for line in encoder.encode(0, e)), *encoder.closing()]
    return [json.loads(line.split("data: ", 1)[1]) for line in lines if "data: {" in line]


async def told(events):
    for event in events:
        yield [(0, event)]
        yield None


def whole(events):
    return asyncio.run(collect(told(events)))


def test_chat_has_them_apart():
    (choice,) = chat_body("m", whole(events_of(WRITTEN)))["choices"]
    message = choice["message"]
    assert message["reasoning_content"] == "hm hm"
    assert message["content"] == "I call."
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert choice["finish_reason"] == "tool_calls"
    encoder = ChatEncoder("m", num_choices=1, includes_usage=True, reports_progress=False)
    chunks = lines_of(encoder, events_of(WRITTEN))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "hm hm"
    assert "".join(d.get("content") or "" for d in deltas) == "I call."
    calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
    assert calls[0]["function"] == {"name": "f", "arguments": ""}
    assert all(set(call) == {"index", "function"} and "name" not in call["function"] for call in calls[1:])
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_messages_have_a_block_for_each():
    blocks = whole_body("m", whole(events_of(WRITTEN))[0])["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[2]["input"] == {"a": 1}
    lines = lines_of(MessageEncoder("m", 3, "r"), events_of(WRITTEN))
    starts = [line["content_block"]["type"] for line in lines if line["type"] == "content_block_start"]
    assert starts == ["thinking", "text", "tool_use"]
    assert [line["index"] for line in lines if line["type"] == "content_block_stop"] == [0, 1, 2]
    assert lines[-2]["delta"]["stop_reason"] == "tool_use"


def test_responses_have_an_item_for_each():
    encoder = ResponsesEncoder("m", {})
    lines = lines_of(encoder, events_of(WRITTEN))
    output = lines[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert output[0]["content"][0]["text"] == "hm hm"
    assert lines[-1]["type"] == "response.completed"


def test_a_call_that_is_cut_is_dropped_and_one_that_makes_no_sense_is_text():
    cut = events_of(WRITTEN[:-20], reason="length")
    assert not any(isinstance(event, ToolOpen) for event in cut)
    assert cut[-1].reason == "length"
    wrong = events_of("<tool_call>\nnot JSON\n</tool_call>")
    assert "".join(e.text for e in wrong if isinstance(e, Text)) == "<tool_call>\nnot JSON\n</tool_call>"
    assert wrong[-1].reason == "stop"


def test_without_tools_marks_are_text():
    text = "".join(e.text for e in events_of(WRITTEN, tools=[]) if isinstance(e, Text))
    assert text.startswith("I call.\n<tool_call>")


def test_one_call_only_ends_the_answer():
    events = events_of(WRITTEN + WRITTEN, only_one_call=True)
    assert sum(isinstance(event, ToolOpen) for event in events) == 1
    assert events[-1].reason == "tool_calls"


@pytest.mark.parametrize("stop", ["call", "I call.", "hm"])
def test_stops_end_the_text_and_not_the_thought(stop):
    events = events_of(WRITTEN, stops=[stop])
    text = "".join(e.text for e in events if isinstance(e, Text))
    assert "".join(e.text for e in events if isinstance(e, Reasoning)) == "hm hm"
    if stop == "hm":
        assert events[-1].reason == "tool_calls"
    else:
        assert text == "I call."[: "I call.".index(stop)]
        assert (events[-1].reason, events[-1].stop_text) == ("stop_sequence", stop)


def test_each_token_of_the_text_is_told_once():
    events = events_of("</think>plain text", tools=[])
    chances = [chance.written for event in events if isinstance(event, Text) for chance in event.chances]
    assert b"".join(chances).decode() == "</think>plain text"
    assert isinstance(events[-1], Finish)


@pytest.mark.parametrize("tools", [[], TOOLS])
@pytest.mark.parametrize(
    ("stop", "count", "told"),
    [("\n", 5, "aaaa"), ("\n\n", 6, "aaaa"), ("a\n\n", 6, "aaa"), ("\n\nb", 7, "aaaa")],
)
def test_a_stop_of_spaces_ends_an_answer_at_once(stop, count, told, tools):
    events = events_of("aaaa\n\nb\n\n", stops=[stop], tools=tools)
    assert (events[-1].reason, events[-1].usage.num_completion) == ("stop_sequence", count)
    assert events[-1].stop_text == stop
    assert "".join(event.text for event in events if isinstance(event, Text)) == told


@pytest.mark.parametrize("size", [1, 2, 3, 5, 30])
@pytest.mark.parametrize(
    ("text", "told"),
    [("\n\n<think>hm</think>\n\nYes", "Yes"), ("Yes\n\n<think>hm</think>\n\nNo", "Yes\n\nNo")],
)
def test_space_belongs_to_a_thought_that_begins_an_answer_only(text, told, size):
    reader = DIALECTS["qwen3-hermes"].reader("", [], takes_calls=False)
    pieces = [piece for i in range(0, len(text), size) for piece in reader.push(text[i : i + size])]
    pieces += reader.finish(is_cut=False)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == told


@pytest.mark.parametrize(
    ("begun", "thought", "text"),
    [("<think>\nhalf", " way", "Yes"), ("<think>x</think>\nSo", "", " way</think>\n\nYes"), ("So", "", None)],
)
def test_a_thought_that_the_answer_began_in_goes_on(begun, thought, text):
    written = " way</think>\n\nYes"
    reader = DIALECTS["qwen3-hermes"].reader("What is <think>?" + begun, [], takes_calls=False, begun=begun)
    pieces = [*reader.push(written), *reader.finish(is_cut=False)]
    assert "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)) == thought
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == (text or written)


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        (WRITTEN + '\n<tool_call>\n{"name": "f", "arg', "length", "length"),
        (WRITTEN + '\n<tool_call>\n{"name": "f", "arg', "stop", "tool_calls"),
        (WRITTEN, "stop", "tool_calls"),
    ],
)
def test_a_limit_that_cut_a_call_off_is_told_beside_those_that_are_whole(text, reason, told):
    events = events_of(text, reason=reason)
    assert [event.name for event in events if isinstance(event, ToolOpen)] == ["f"]
    assert events[-1].reason == told
    assert chat_body("m", whole(events))["choices"][0]["finish_reason"] == told


def test_an_answer_that_ends_with_its_only_call_was_not_cut_off():
    assert events_of(WRITTEN + " and", only_one_call=True, reason="length")[-1].reason == "tool_calls"


@pytest.mark.parametrize(("family", "call"), {
    "qwen3-hermes": '<tool_call>\n{"name": "f", "arguments": {"a": %s}}\n</tool_call>',
    "qwen3-xml": "<tool_call>\n<function=f>\n<parameter=a>\n%s\n</parameter>\n</function>\n</tool_call>",
    "gemma4": "<|tool_call>call:f{a:%s}<tool_call|>",
    "glm": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>",
    "mistral": '[TOOL_CALLS]f[ARGS]{"a": %s}',
    "gpt-oss": '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": %s}<|call|>',
    "lfm2": "<|tool_call_start|>[f(a=%s)]<|tool_call_end|>",
}.items())  # fmt: skip
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_has_none_for_stay_texts(family, call, number):
    reader = DIALECTS[family].reader("", TOOLS, takes_calls=True)
    (read,) = reader.push(call % number) + reader.finish(is_cut=False)
    assert json.loads(read.arguments) == {"a": number}


def test_half_a_character_in_an_argument_can_be_sent():
    events = events_of(
        '<tool_call>\n{"name": "f", "arguments": {"a": "\\ud83d\\ude00 \\ud83d"}}\n</tool_call>'
    )
    assert json.loads(whole(events)[0].calls[0].arguments.encode()) == {"a": "\U0001f600 \ufffd"}
