"""A schema and functions in one request: the answer is of the schema, or calls functions."""

from __future__ import annotations

import pytest
from server.test_constraints import marked_tokenizer
from server.test_held_calls import BETWEEN, FAMILIES, FUNCTIONS, Marked, calls_in, follow, written

from edgemoe.server.constraining import plan_constraint
from edgemoe.server.dialects import DIALECTS
from edgemoe.server.request import REQUIRED, AnswerRequest, ToolChoice

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip
ANSWER = '{"a": "<function={ and ["}'
FINAL = "<|channel|>final<|message|>"
SECTION = {"deepseek": "<｜tool▁calls▁begin｜>"}


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    return Marked(*marked_tokenizer(tmp_path_factory.mktemp("marked")))


def constraint_of(local, family, prompt="", **more):
    request = AnswerRequest("m", messages=[], tools=FUNCTIONS, schema=SCHEMA, **more)
    return plan_constraint(local, DIALECTS[family], request, prompt)()


def may_end(local, constraint):
    mask = constraint.mask()
    (end,) = local.tokenizer.stop_ids
    return mask is None or bool(mask[end])


@pytest.mark.parametrize("family", DIALECTS)
def test_an_answer_is_of_the_schema(marked, family):
    begins = FINAL if family == "gpt-oss" else ""
    constraint = constraint_of(marked, family)
    assert not may_end(marked, constraint)
    assert follow(marked, constraint, begins + '{"a": "')[0] == begins + '{"a": "'
    assert not may_end(marked, constraint)
    whole = constraint_of(marked, family)
    assert follow(marked, whole, begins + ANSWER)[0] == begins + ANSWER
    assert may_end(marked, whole)
    assert follow(marked, constraint_of(marked, family), begins + '{"b')[0] == begins + '{"'


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_comes_in_its_place_and_is_held_to_its_parameters(marked, family):
    text = SECTION.get(family, "") + written("get_time", ("zone", "CET"))[family]
    constraint = constraint_of(marked, family)
    assert follow(marked, constraint, text)[0] == text
    assert may_end(marked, constraint)
    assert [call.name for call in calls_in(family, text)] == ["get_time"]
    wrong = SECTION.get(family, "") + written("get_tune", ("zone", "CET"))[family]
    assert "get_tu" not in follow(marked, constraint_of(marked, family), wrong)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_further_calls_are_held_too(marked, family):
    first = SECTION.get(family, "") + written("get_time", ("zone", "CET"))[family] + BETWEEN.get(family, "")
    constraint = constraint_of(marked, family)
    assert follow(marked, constraint, first)[0] == first
    wrong = written("get_tune", ("zone", "CET"))[family]
    assert follow(marked, constraint, wrong)[0] == wrong.partition("une")[0]


@pytest.mark.parametrize("gap", ["", "\n\n"])
@pytest.mark.parametrize(
    "answer", [ANSWER, '<tool_call>\n{"name": "get_time", "arguments": {"zone": "CET"}}']
)
def test_the_model_thinks_before_either(marked, answer, gap):
    """A newline behind the thought does not say what comes."""
    text = f"I could call or not.</think>{gap}{answer}"
    constraint = constraint_of(marked, "qwen3-hermes", prompt="<think>\n")
    assert follow(marked, constraint, text)[0] == text
    assert (
        follow(marked, constraint_of(marked, "qwen3-hermes", prompt="<think>\n"), "a</think>b")[0]
        == "a</think>"
    )


def test_a_call_may_come_from_within_a_thought_where_the_family_leaves_thoughts_open(marked):
    text = "Hm. " + written("get_time", ("zone", "CET"))["qwen3-xml"]
    constraint = constraint_of(marked, "qwen3-xml", prompt="<think>\n")
    assert follow(marked, constraint, text) == (text, True)
    assert may_end(marked, constraint)


def test_a_call_that_must_be_made_needs_no_schema(marked):
    constraint = constraint_of(marked, "qwen3-hermes", tool_choice=ToolChoice(REQUIRED))
    text = written("get_time", ("zone", "CET"))["qwen3-hermes"]
    assert follow(marked, constraint, text)[0] == text


@pytest.mark.parametrize("bias", [-100, 100])
def test_a_request_may_have_both(http, server, bias):
    """What the first token opens decides, and is then held to."""
    ids = {str(server.app.shelf.resident.model.tokenizer.encode("<")[0]): bias}
    parameters = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Say."}],
        "temperature": 0,
        "max_tokens": 80,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "boolean"}}},
        "logit_bias": ids,
    }
    (choice,) = http.post("/v1/chat/completions", json=body).json()["choices"]
    if bias > 0:
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["f"]
    else:
        assert choice["message"]["content"] in {"true", "false"}
