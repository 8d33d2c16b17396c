"""Requests in the words of other servers of the same protocols: acted on, or refused by name."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from server.test_constraints import marked_tokenizer
from server.test_held_calls import Marked, follow

from edgemoe.server.constraining import plan_constraint
from edgemoe.server.dialects import DIALECTS
from edgemoe.server.failures import Failure
from edgemoe.server.listening import Listener
from edgemoe.server.openai.chat_request import read_chat
from edgemoe.server.options import Limits, ServerOptions
from edgemoe.server.request import AUTO, NONE, REQUIRED, AnswerRequest, ToolChoice
from edgemoe.server.schema_references import with_coded_references

SAY = [{"role": "user", "content": "Tell a story."}]
ASK = {"model": "demo", "messages": SAY}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
THINKS, DOES_NOT = ({"enable_thinking": flag, "thinking": flag} for flag in (True, False))


def tool(parameters, name="f"):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def called(http, parameters, **more):
    body = ASK | {"temperature": 0, "max_tokens": 80, "tool_choice": "required", "tools": [tool(parameters)]}
    return http.post("/v1/chat/completions", json=body | more)


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_object", "schema": DIGIT}},
        {"response_format": {"type": "json_schema", "schema": DIGIT}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": DIGIT}}},
        {"response_format": {"type": "json_object"}, "json_schema": DIGIT},
        {"json_schema": DIGIT},
    ],
)
@pytest.mark.parametrize(
    ("path", "about"), [("/v1/chat/completions", {"messages": SAY}), ("/v1/completions", {"prompt": "Once"})]
)
def test_a_schema_is_kept_to_wherever_it_stands(http, path, about, more):
    body = {"model": "demo", "temperature": 0, "max_tokens": 8} | about
    (choice,) = http.post(path, json=body | more).json()["choices"]
    assert (choice.get("text") or choice["message"]["content"]) in set("0123456789")
    assert choice["finish_reason"] == "stop"


def test_a_schema_that_is_missing_is_not_any_json():
    with pytest.raises(Failure, match=r"response_format.json_schema.schema: is missing"):
        read_chat(ASK | {"response_format": {"type": "json_schema", "json_schema": DIGIT}}, Limits())


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"enable_thinking": False}, DOES_NOT),
        ({"enable_thinking": None}, {}),
        ({"thinking": {"type": "disabled"}}, DOES_NOT),
        ({"thinking": {"type": "enabled", "budget_tokens": 512}}, THINKS),
        ({"thinking": True}, THINKS),
        ({"reasoning": {"enabled": False}}, DOES_NOT),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, DOES_NOT),
        ({"enable_thinking": False, "chat_template_kwargs": {"enable_thinking": True}},
         {"enable_thinking": True, "thinking": False}),
    ],
)  # fmt: skip
def test_whether_to_think_is_heard_in_each_of_its_names(more, options):
    request = read_chat(ASK | more, Limits())
    assert (request.template_options, request.ignored_fields) == (options, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allowed_token_ids", [5]),
        ("include_stop_str_in_output", True),
        ("truncate_prompt_tokens", 3),
        ("chat_template", "x"),
        ("documents", [{"text": "x"}]),
        ("echo", True),
        ("add_special_tokens", True),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(field, value):
    with pytest.raises(Failure, match=field):
        read_chat(ASK | {field: value}, Limits())


def test_the_most_tokens_have_a_third_name():
    assert read_chat(ASK | {"n_predict": 3}, Limits()).max_tokens == 3
    assert read_chat(ASK | {"n_predict": 3, "max_tokens": 5}, Limits()).max_tokens == 5


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"type": "auto"}, AUTO), ({"type": "none"}, NONE), ({"type": "required"}, REQUIRED), ("any", REQUIRED)],
)
def test_a_choice_of_tools_may_be_an_object_of_one_word(value, kind):
    assert read_chat(ASK | {"tools": [tool({})], "tool_choice": value}, Limits()).tool_choice.kind == kind


def test_a_word_that_is_none_is_refused():
    with pytest.raises(Failure, match=r"tool_choice.type: must be a string"):
        read_chat(ASK | {"tools": [tool({})], "tool_choice": {"type": ["auto"]}}, Limits())


@pytest.mark.parametrize("choice", [REQUIRED, AUTO])
def test_parameters_may_need_what_they_do_not_describe(tmp_path, choice):
    """Their authors forget it; anything may stand there."""
    marked = Marked(*marked_tokenizer(tmp_path))
    tools = [tool({"type": "object", "properties": {"a": DIGIT}, "required": ["a", "z"]})]
    request = AnswerRequest("m", messages=[], tools=tools, tool_choice=ToolChoice(choice))
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1, "z": [2]}}\n</tool_call>'
    plan = plan_constraint(marked, DIALECTS["qwen3-hermes"], request, "")
    assert follow(marked, plan(), text)[0] == text
    assert follow(marked, plan(), text.replace('"a": 1', '"a": "x"'))[0].endswith('"a": ')


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": DIGIT}, "required": None},
        {"type": None, "properties": {"a": DIGIT}, "required": ["a"]},
        {"type": ["null", "object"], "properties": {"a": DIGIT}, "required": ["a"]},
    ],
)
def test_null_in_parameters_says_nothing(http, parameters):
    (choice,) = called(http, parameters).json()["choices"]
    arguments = json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])
    assert arguments in [{"a": digit} for digit in range(10)]


def test_the_function_that_cannot_be_kept_to_is_named(http):
    wrong = tool({"type": "object", "properties": {"a": {"type": "frobnicate"}}, "required": ["a"]}, "second")
    answer = called(http, {}, tools=[tool({}, "first"), wrong])
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message == "tools: 'second': the schema cannot be used: Invalid type: frobnicate"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_name_that_no_call_could_be_read_with_is_refused(name):
    with pytest.raises(Failure, match=r"tools\[0\].function.name: has a quotation mark"):
        read_chat(ASK | {"tools": [tool({}, name)]}, Limits())


@pytest.mark.parametrize("name", ["Page[Item]", "List<System.String>", "a b/c", "Größe", "A`1"])
def test_definitions_may_have_names_that_addresses_cannot(http, name):
    """Programs name them after their types."""
    place = name.replace("~", "~0").replace("/", "~1")
    schema = {"$defs": {name: DIGIT}, "type": "object", "properties": {"a": {"$ref": f"#/$defs/{place}"}},
              "required": ["a"], "additionalProperties": False}  # fmt: skip
    (choice,) = called(http, schema).json()["choices"]
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["a"] in range(10)
    body = ASK | {
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        "max_tokens": 20,
    }
    (choice,) = http.post("/v1/chat/completions", json=body).json()["choices"]
    assert json.loads(choice["message"]["content"])["a"] in range(10)


def test_references_in_values_are_left_alone():
    schema = {
        "enum": [{"$ref": "#/a b"}],
        "properties": {"$ref": {"$ref": "#/$defs/a b%20"}, "x": [{"$ref": "#"}]},
    }
    coded = {
        "enum": [{"$ref": "#/a b"}],
        "properties": {"$ref": {"$ref": "#/$defs/a%20b%20"}, "x": [{"$ref": "#"}]},
    }
    assert with_coded_references(schema) == coded


def test_parameters_that_are_no_object_are_refused():
    """A call with them is none that a client could read."""
    with pytest.raises(Failure, match=r"tools\[0\].function.parameters.type: must be object"):
        read_chat(ASK | {"tools": [tool({"type": "array", "items": {}})]}, Limits())


LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "type": "object",
        "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "says"),
    [({"$ref": "#"}, "response_format: the schema cannot be used"), (LOOP, "the schema cannot be kept to")],
)
def test_a_definition_that_stands_for_itself_is_refused_in_one_line(http, schema, says):
    body = ASK | {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    answer = http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        f"{says}: nothing is allowed here",
    )


def test_connections_stay_open_longer_than_clients_keep_them():
    listener = Listener(SimpleNamespace(options=ServerOptions()))
    assert listener.config.timeout_keep_alive > 90  # Go's clients, and proxies written in it


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/tags"), ("POST", "/api/chat"), ("GET", "/api/version")]
)
def test_clients_of_ollama_are_told_what_to_choose(http, method, path):
    answer = http.request(method, path)
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert message == (
        f"there is nothing at {method} {path}; Ollama's API is not served: choose OpenAI's in the client,"
        " at this address with /v1 behind it"
    )
