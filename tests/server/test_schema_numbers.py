"""Whole numbers beyond 2^53 and nulls in schemas."""

from __future__ import annotations

import json

import pytest
from server.test_constraints import marked_tokenizer
from server.test_held_calls import Marked, follow

from edgemoe.server.constraining import plan_constraint
from edgemoe.server.dialects import DIALECTS
from edgemoe.server.failures import Failure
from edgemoe.server.request import REQUIRED, AnswerRequest, ToolChoice
from edgemoe.server.schema_numbers import rounded_choice, with_float_bounds
from edgemoe.server.schema_references import with_coded_references
from edgemoe.server.schema_walk import without_nulls

ID = 2**53 + 1  # as a float one less; so are the ids of many services
HERMES = DIALECTS["qwen3-hermes"]


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    return Marked(*marked_tokenizer(tmp_path_factory.mktemp("marked")))


def object_of(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def calls(marked, schema, **more):
    tools = [{"type": "function", "function": {"name": "f", "description": "", "parameters": schema}}]
    return plan_constraint(marked, HERMES, AnswerRequest("m", messages=[], tools=tools, **more), "")


def can_call(marked, schema, value, **more):
    text = f'<tool_call>\n{{"name": "f", "arguments": {json.dumps({"a": value})}}}\n</tool_call>'
    return follow(marked, calls(marked, schema, **more)(), text)[0] == text


FORCED = {"tool_choice": ToolChoice(REQUIRED)}


@pytest.mark.parametrize(
    ("keyword", "bound", "inside", "outside"),
    [
        ("minimum", ID, ID + 1, ID - 1),
        ("exclusiveMinimum", ID, ID + 3, ID - 1),
        ("maximum", 2**60 - 1, 2**60 - 128, 2**60),
        ("exclusiveMaximum", 2**60 - 1, 2**60 - 129, 2**60),
        ("maximum", -ID, -ID - 1, -ID + 1),
        ("minimum", -(2**60) + 1, -(2**60) + 128, -(2**60)),
        ("maximum", 2**63 - 1, 2**63 - 1, 2**63),  # of Go's and Rust's integers
        ("maximum", 2**64 - 1, 2**63 - 1, 2**64),
        ("minimum", 5, 5, 4),
    ],
)
def test_no_number_beyond_a_bound_can_be_written(marked, keyword, bound, inside, outside):
    schema = object_of(a={"type": "integer", keyword: bound})
    for more in (FORCED, {}):
        assert can_call(marked, schema, inside, **more)
        assert not can_call(marked, schema, outside, **more)


@pytest.mark.parametrize(
    "choices", [{"const": ID}, {"enum": [1, ID]}, {"anyOf": [{"enum": [ID]}, {"const": 2}]}]
)
def test_a_choice_that_would_be_written_as_another_number_is_refused(marked, choices):
    schema = object_of(a=choices)
    with pytest.raises(Failure, match=rf"tools: 'f': the schema asks for the number {ID}"):
        calls(marked, schema, **FORCED)
    assert can_call(marked, schema, ID)  # a call by itself is free there
    asked = AnswerRequest("m", messages=[], schema=schema)
    with pytest.raises(Failure, match=rf"response_format: the schema asks for the number {ID}"):
        plan_constraint(marked, HERMES, asked, "")


def test_numbers_that_are_floats_are_taken(marked):
    assert can_call(marked, object_of(a={"enum": [2**60, 7]}), 2**60, **FORCED)
    assert rounded_choice({"enum": [True, None, "x", 2**53, -(2**70), 0.1]}) is None
    assert rounded_choice({"properties": {"enum": {"type": "integer"}, "const": {"default": ID}}}) is None
    assert rounded_choice({"items": [{"const": 10**400}]}) == 10**400
    assert with_float_bounds({"minimum": True, "maximum": 0.5}) == {"minimum": True, "maximum": 0.5}


def test_null_within_parameters_is_absent(marked):
    digit = {"type": "integer", "minimum": 0, "maximum": 9, "enum": None, "multipleOf": None, "$ref": None}
    schema = object_of(a=digit) | {"$defs": None, "required": None}
    for more in (FORCED, {}):
        assert can_call(marked, schema, 7, **more)
        assert not can_call(marked, schema, 10, **more)


def test_null_is_a_value_where_values_stand():
    schema = {
        "properties": {"minimum": None, "const": {"const": None, "type": None}},
        "default": None,
        "examples": [None],
        "anyOf": [{"enum": [None]}, {"type": "string", "pattern": None}],
        "items": None,
    }
    assert without_nulls(schema) == {
        "properties": {"minimum": {}, "const": {"const": None}},
        "default": None,
        "examples": [None],
        "anyOf": [{"enum": [None]}, {"type": "string"}],
    }


def test_references_of_properties_named_as_keywords_are_coded():
    schema = {"properties": {"default": {"$ref": "#/$defs/a b"}}, "default": {"$ref": "#/a b"}}
    coded = {"properties": {"default": {"$ref": "#/$defs/a%20b"}}, "default": {"$ref": "#/a b"}}
    assert with_coded_references(schema) == coded
