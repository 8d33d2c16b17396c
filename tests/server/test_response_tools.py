"""Tools of responses that are no plain functions, in the shapes that Codex 0.171 sends."""

from __future__ import annotations

import json

import pytest
from openai.types.responses import ResponseStreamEvent
from server.test_shapes import events_of, strictly

from edgemoe.server.failures import Failure
from edgemoe.server.openai.response_tools import custom_input
from edgemoe.server.openai.responses_request import read_responses
from edgemoe.server.options import Limits

LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" LF\n%import common.LF\n'}
REGEX = {"type": "grammar", "syntax": "regex", "definition": r"\*\*\* Add File: [a-c]\.txt"}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": LARK}
QUERY = {"type": "object", "properties": {"query": {"enum": ["fox"]}}, "required": ["query"]}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": QUERY}
WAIT = {"type": "function", "name": "wait", "description": "Waits.", "strict": False, "parameters": QUERY}
EXEC = {"type": "custom", "name": "exec", "description": "Runs JavaScript.", "format": REGEX}
SPACE = {"type": "namespace", "name": "functions", "description": "", "tools": [EXEC, WAIT]}
ADDITIONAL = {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": [SPACE]}
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}]}


def read(**body):
    return read_responses({"model": "m", "input": [USER], **body}, Limits())


def names(asked):
    return [tool["function"]["name"] for tool in asked.tools]


def streamed(http, **body):
    """The one item of an answer, and the kinds of its events."""
    answer = http.post("/v1/responses", json={"model": "demo", "input": [USER], "stream": True, **body})
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text)
    for event in events:
        strictly(ResponseStreamEvent, event)
    (item,) = events[-1]["response"]["output"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == [item]
    return item, events


def test_a_custom_tool_is_a_function_with_one_text():
    (tool,) = read(tools=[PATCH]).tools
    function = tool["function"]
    assert function["name"] == "apply_patch"
    assert function["description"].startswith("Edits files.")
    assert "*** Begin Patch" in function["description"]
    assert function["parameters"]["required"] == ["input"]
    assert "pattern" not in function["parameters"]["properties"]["input"]
    plain = read(tools=[{"type": "custom", "name": "say"}]).tools[0]["function"]
    assert plain["description"] == ""


def test_a_call_of_a_custom_tool_keeps_to_its_pattern(http):
    choice = {"type": "custom", "name": "apply_patch"}
    item, events = streamed(http, tools=[PATCH | {"format": REGEX}], tool_choice=choice)
    assert (item["type"], item["name"], item["status"]) == ("custom_tool_call", "apply_patch", "completed")
    assert item["input"] in {f"*** Add File: {letter}.txt" for letter in "abc"}
    told = {event["type"]: event for event in events}
    assert told["response.custom_tool_call_input.delta"]["delta"] == item["input"]
    assert told["response.custom_tool_call_input.done"]["input"] == item["input"]
    assert "response.function_call_arguments.delta" not in told
    added = next(event for event in events if event["type"] == "response.output_item.added")
    assert added["item"]["call_id"] == item["call_id"]


def test_the_turn_after_a_custom_call_reads_only_what_is_new(http):
    tools = [PATCH | {"format": REGEX}]
    item, _ = streamed(http, tools=tools, tool_choice={"type": "custom", "name": "apply_patch"})
    result = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "Done!"}
    _, events = streamed(http, tools=tools, input=[USER, item, result], max_output_tokens=4)
    usage = events[-1]["response"]["usage"]
    assert usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"] < 50


def test_tools_that_come_as_an_item_are_offered_and_called_in_their_namespace(http):
    asked = read(input=[ADDITIONAL, USER])
    assert names(asked) == ["functions__exec", "functions__wait"]
    assert asked.untold_tools == frozenset()
    choice = {"type": "custom", "name": "functions__exec"}
    item, _ = streamed(http, input=[ADDITIONAL, USER], tool_choice=choice)
    assert (item["type"], item["namespace"], item["name"]) == ("custom_tool_call", "functions", "exec")
    kept = http.post("/v1/responses", json={"model": "demo", "input": [ADDITIONAL, USER],
                                            "max_output_tokens": 4}).json()  # fmt: skip
    choice = {"type": "function", "name": "functions__wait"}
    item, _ = streamed(http, previous_response_id=kept["id"], tool_choice=choice)
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "functions", "wait")
    called = {
        "type": "custom_tool_call",
        "call_id": "1",
        "name": "exec",
        "namespace": "functions",
        "input": "x",
    }
    (call,) = read(input=[USER, called]).messages[-1]["tool_calls"]
    assert call["function"] == {"name": "functions__exec", "arguments": {"input": "x"}}


def test_tools_that_come_later_leave_what_stands_before_them_as_it_was():
    asked = read(input=[USER, ADDITIONAL, USER], tools=[PATCH])
    assert names(asked) == ["apply_patch", "functions__exec", "functions__wait"]
    assert asked.untold_tools == {"functions__exec", "functions__wait"}
    assert [message["role"] for message in asked.messages] == ["user", "system", "user"]
    assert '"functions__wait"' in asked.messages[1]["content"]


def test_a_client_searches_for_tools_itself(http):
    item, _ = streamed(http, tools=[SEARCH], tool_choice="required")
    assert (item["type"], item["execution"]) == ("tool_search_call", "client")
    assert item["arguments"] == {"query": "fox"}
    found = {"type": "tool_search_output", "call_id": item["call_id"], "execution": "client",
             "status": "completed", "tools": [WAIT]}  # fmt: skip
    asked = read(input=[USER, item, found], tools=[SEARCH])
    assert names(asked) == ["tool_search", "wait"]
    assert asked.untold_tools == {"wait"}
    call, result = asked.messages[-2:]
    assert call["tool_calls"][0]["function"] == {"name": "tool_search", "arguments": {"query": "fox"}}
    assert (result["role"], result["tool_call_id"]) == ("tool", item["call_id"])
    assert '"wait"' in result["content"]
    choice = {"type": "function", "name": "wait"}
    called, _ = streamed(http, tools=[SEARCH], input=[USER, item, found], tool_choice=choice)
    assert (called["type"], called["name"]) == ("function_call", "wait")


def test_what_another_server_searched_is_left_out():
    search = {"type": "tool_search_call", "execution": "server", "call_id": None, "arguments": {}}
    found = {"type": "tool_search_output", "execution": "server", "call_id": None, "tools": [WAIT]}
    asked = read(input=[USER, search, found, USER], tools=[{"type": "tool_search"}, {"type": "web_search"}])
    assert names(asked) == []
    assert len(asked.messages) == 2


def test_tools_of_all_places_count_together():
    many = [WAIT | {"name": f"f{n}"} for n in range(200)]
    more = ADDITIONAL | {"tools": [WAIT | {"name": f"g{n}"} for n in range(57)]}
    with pytest.raises(Failure, match=r"input\[0\]\.tools: are 257; at most 256"):
        read(tools=many, input=[more, USER])


@pytest.mark.parametrize(
    ("written", "meant"),
    [({"input": "a\nb"}, "a\nb"), ({"patch": "a"}, "a"), ({"input": "", "x": 1}, "")],
)
def test_a_custom_input_is_the_text_that_the_model_gave(written, meant):
    assert custom_input(json.dumps(written)) == meant


@pytest.mark.parametrize("written", ['{"a": "x", "b": "y"}', '{"input": [1]}', "{}", "cut {"])
def test_an_input_that_is_no_one_text_is_told_as_it_came(written):
    assert custom_input(written) == written
