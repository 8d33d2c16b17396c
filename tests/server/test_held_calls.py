"""Calls that a model makes by itself, held to the declared functions from their opening mark on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from helpers.drafters import KnowingDrafter, with_drafter
from helpers.live_server import DEMO_STORE, EXTRA_BYTES
from hypothesis import given, settings
from hypothesis import strategies as st
from server.test_constraints import TIME, WEATHER, chain, marked_tokenizer
from server.test_dialects import fixtures, prompt_of

import edgemoe
from edgemoe.engine.machine import resident_bytes
from edgemoe.server.constraining import plan_constraint
from edgemoe.server.dialects import DIALECTS, Call
from edgemoe.server.failures import Failure
from edgemoe.server.grammar import Function, call_grammar
from edgemoe.server.held_calls import CallWatch
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import NONE, REQUIRED, AnswerRequest, ToolChoice

NOTE = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "tags": {"type": "array"}},
    "required": ["text"],
}
SCHEMAS = {"get_weather": WEATHER, "get_time": TIME, "note": NOTE}
FUNCTIONS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
XML = "<tool_call>\n<function={}>\n{}</function>\n</tool_call>"


def xml(name, *pairs):
    return XML.format(name, "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in pairs))


def glm(name, *pairs):
    inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in pairs)
    return f"<tool_call>{name}\n{inner}</tool_call>"


def gemma(name, values):
    def shown(value):
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{shown(inner)}" for key, inner in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(shown, value)) + "]"
        return f'<|"|>{value}<|"|>' if isinstance(value, str) else json.dumps(value)

    return f"<|tool_call>call:{name}{shown(values)}<tool_call|>"


def python(name, values):
    """A call as LFM2's documents have it: texts in JSON's way, words in Python's."""
    inner = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return f"<|tool_call_start|>[{name}({inner})]<|tool_call_end|>"


def written(name, *pairs):
    """A call as each family writes it."""
    values = {key: json.loads(value) if value[0] in "{[0123456789" else value for key, value in pairs}
    spaced, tight = json.dumps(values), json.dumps(values, separators=(",", ":"))
    return {
        "qwen3-hermes": f'<tool_call>\n{{"name": "{name}", "arguments": {spaced}}}\n</tool_call>',
        "qwen3-xml": xml(name, *pairs),
        "glm": glm(name, *pairs),
        "gemma4": gemma(name, values),
        "gpt-oss": f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{tight}",
        "deepseek": f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{spaced}<｜tool▁call▁end｜>",
        "mistral": f"[TOOL_CALLS]{name}[ARGS]{spaced}",
        "lfm2": python(name, values),
    }


FAMILIES = sorted(written("f"))
# What stands before the first call, and between two.
BEFORE = {"gpt-oss": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"}
BETWEEN = {"gpt-oss": "<|end|><|start|>assistant"}


@pytest.fixture(scope="module")
def local():
    """The shipped model."""
    with edgemoe.load(DEMO_STORE, resident_bytes() + EXTRA_BYTES, num_texts=2, draft="none") as model:
        yield LocalModel("demo", model)


class Marked:
    """A model as far as constraints look at it, with marks as tokens: none is shipped that has them."""

    def __init__(self, tokenizer, vocabulary):
        self.model = self
        self.tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._watches = {}

    def vocabulary(self):
        return self._vocabulary

    def call_watch(self, dialect):
        return self._watches.setdefault(dialect.name, CallWatch(dialect, self.tokenizer))


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    return Marked(*marked_tokenizer(tmp_path_factory.mktemp("marked")))


def asked(**more):
    return AnswerRequest("m", messages=[], tools=FUNCTIONS, **more)


def constraint_of(local, family, prompt="", **more):
    return plan_constraint(local, DIALECTS[family], asked(**more), prompt)()


def follow(local, constraint, text):
    """Write a text; how much of it was allowed, and whether all was free at its end."""
    ids = local.model.tokenizer.encode(text, adds_special=False)
    for place, token_id in enumerate(ids):
        mask = constraint.mask()
        if mask is not None and not mask[token_id]:
            return local.model.tokenizer.decode_all(ids[:place]), False
        constraint.accept(token_id)
    return text, constraint.mask() is None


def calls_in(family, text):
    reader = DIALECTS[family].reader("", FUNCTIONS, takes_calls=True)
    return [item for item in reader.push(text) + reader.finish(is_cut=False) if isinstance(item, Call)]


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_as_the_family_writes_them_may_be_written_one_after_another(marked, family):
    constraint = constraint_of(marked, family)
    text = BEFORE.get(family, "I look.\n")
    for call in (
        written("get_weather", ("city", "Paris"), ("days", "2")),
        written("note", ("text", 'Say "hi"\\ to <b>them</b>, ü'), ("tags", "[1, {}]")),
        written("note", ("text", "a")),
        written("get_time", ("zone", "UTC")),
    ):
        text += call[family] + BETWEEN.get(family, "")
    assert follow(marked, constraint, text) == (text, True)
    calls = calls_in(family, text)
    assert [call.name for call in calls] == ["get_weather", "note", "note", "get_time"]
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "pairs", "blocked"),
    [
        ("get_wealth", [], "get_weal"),
        ("get_weather", [("city", "Rome"), ("days", "2")], "Ro"),
        ("get_weather", [("city", "Paris"), ("days", "77")], "77"),
        ("get_weather", [("city", "Paris")], "Paris"),
        ("get_time", [("zone", "UTC"), ("day", "7")], "day"),
    ],
    ids=["name", "choice", "number", "missing", "unknown"],
)
def test_what_no_function_takes_cannot_be_written(marked, family, name, pairs, blocked):
    text = written(name, *pairs)[family]
    allowed, _ = follow(marked, constraint_of(marked, family), text)
    if family == "gemma4" and blocked == "Paris":
        return  # which arguments are there is not held: they come in any order
    assert allowed != text
    if blocked != "Paris":
        assert blocked not in allowed
    else:  # the end of a call that lacks an argument
        assert "Paris" in allowed


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loose_function_takes_what_the_form_allows(marked, family):
    constraint = constraint_of(marked, family, loose_tools=frozenset(["get_weather"]))
    text = written("get_weather", ("country", "Chile"), ("depth", '{"a": [1, 2]}'))[family]
    assert follow(marked, constraint, text) == (text, True)
    (call,) = calls_in(family, text)
    assert json.loads(call.arguments)["country"] == "Chile"
    allowed, _ = follow(marked, constraint_of(marked, family, loose_tools=frozenset(["get_weather"])),
                        written("get_time", ("zone", "PST"))[family])  # fmt: skip
    assert "P" not in allowed.split("zone")[-1]


ODD = {
    "type": "object",
    "properties": {
        "note": {"type": ["string", "null"]},
        "count": {"type": ["integer", "null"]},
        "any": True,
        'un<der> "quotes"': {"anyOf": [{"type": "string"}, {"type": "number"}]},
        "inner": {"$ref": "#/$defs/pair"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/pair"}},
    },
    "required": ["note", 5],
    "$defs": {"pair": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("required", [["note"], "note", None])
def test_schemas_of_any_kind_are_held_as_far_as_they_can_be(marked, family, required):
    odd = ODD | {"required": required}
    tools = [{"type": "function", "function": {"name": "odd", "description": "", "parameters": odd}}]
    constraint = plan_constraint(marked, DIALECTS[family], AnswerRequest("m", messages=[], tools=tools), "")()
    text = written("odd", ("note", "x"), ("count", "7"), ("any", "[1]"), ("list", '[{"a": 1}]'))[family]
    assert follow(marked, constraint, text)[0] == text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["string", "object"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["type", "properties", "required", "enum", "const", "$defs", "additionalProperties"])


@given(
    st.dictionaries(KEYS, ANYTHING | st.dictionaries(st.text(max_size=4), st.dictionaries(KEYS, ANYTHING)))
)
@settings(max_examples=80, deadline=None)
def test_no_schema_breaks_what_makes_grammars(schema):
    for dialect in DIALECTS.values():
        for opening in dialect.openings:
            assert call_grammar([Function('a"b', schema)], "", opening.forms, {}) is not None


# Of what real models wrote: marks that are single tokens here within arguments, slips in closing tags, and
# lists of calls, which belong to "mistral-list".
BLOCKED = {
    "qwen3-hermes": 1,
    "qwen3-xml": 4,
    "gemma4": 1,
    "gpt-oss": 1,
    "glm": 2,
    "deepseek": 2,
    "mistral": 9,
    "lfm2": 0,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_of_real_models_may_be_written_as_they_were(marked, family):
    blocked = []
    for fixture in fixtures(family):
        reader = DIALECTS[family].reader(prompt_of(fixture), fixture.tools, takes_calls=True)
        items = reader.push(fixture.raw_output) + reader.finish(is_cut=fixture.truncated)
        if fixture.tools and any(isinstance(item, Call) for item in items):
            request = AnswerRequest("m", messages=[], tools=fixture.tools)
            constraint = plan_constraint(marked, DIALECTS[family], request, prompt_of(fixture))()
            if follow(marked, constraint, fixture.raw_output)[0] != fixture.raw_output:
                blocked.append(fixture.id)
    assert len(blocked) <= BLOCKED[family], blocked


def test_parameters_deeper_than_can_be_followed_are_any_object(marked):
    deep = {"type": "function", "function": {"name": "f", "description": "", "parameters": chain(3000)}}
    request = AnswerRequest("m", messages=[], tools=[deep])
    constraint = plan_constraint(marked, DIALECTS["qwen3-hermes"], request, "")()
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert follow(marked, constraint, text) == (text, True)
    must = replace(request, tool_choice=ToolChoice(REQUIRED))
    with pytest.raises(Failure, match="more than 1000 levels"):
        plan_constraint(marked, DIALECTS["qwen3-hermes"], must, "")


def test_a_mark_within_a_thought_opens_nothing(marked):
    text = "<think>I could write <tool_call>\n{1} or <tool_call>x.</think>So: "
    constraint = constraint_of(marked, "qwen3-hermes")
    assert follow(marked, constraint, text) == (text, True)
    call = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "CET"}}\n</tool_call>'
    assert follow(marked, constraint, call) == (call, True)
    inside = constraint_of(marked, "qwen3-hermes", prompt="<think>\n")
    assert follow(marked, inside, "a <tool_call>{ b</think>") == ("a <tool_call>{ b</think>", True)
    assert follow(marked, inside, "<tool_call>{1")[0] == "<tool_call>{"
    forgets = constraint_of(marked, "qwen3-xml", prompt="<think>\n")  # this family leaves thoughts open
    assert follow(marked, forgets, "a <tool_call>\n<function=x")[0] == "a <tool_call>\n<function="


def test_nothing_is_held_where_nothing_can_be_called(marked):
    for family, more in (("mistral-list", {}), ("glm", {"tool_choice": ToolChoice(NONE)})):
        assert constraint_of(marked, family, **more) is None


def test_a_call_that_begins_otherwise_stays_free(local):
    """Here the mark is plain text, and comes in one piece with what is behind it."""
    constraint = constraint_of(local, "qwen3-hermes")
    text = 'A <tool_call> in a text, and <tool_call>\t{"x": 1} too.'
    assert follow(local, constraint, text) == (text, True)


def test_a_grammar_that_cannot_be_made_holds_nothing(marked):
    broken = {"type": "object", "properties": {"a": {"type": "frobnicate"}}, "required": ["a"]}
    tools = [{"type": "function", "function": {"name": "f", "description": "", "parameters": broken}}]
    request = AnswerRequest("m", messages=[], tools=tools)
    constraint = plan_constraint(marked, DIALECTS["qwen3-hermes"], request, "")()
    text = '<tool_call>\n{"name": "g"'
    assert follow(marked, constraint, text) == (text, True)


def test_outside_calls_no_token_is_looked_at_twice(local):
    watch = local.call_watch(DIALECTS["qwen3-hermes"])
    ids = local.model.tokenizer.encode("Once upon a time there was a fox.", adds_special=False)
    assert not any(map(watch.can_end_mark, ids))
    assert watch.can_end_mark(local.model.tokenizer.encode("{", adds_special=False)[-1])


class Opens:
    """A constraint that makes the model write openings, one wherever it is free; then it may end."""

    def __init__(self, inner, openings, size):
        self._inner = inner
        self._todo = [list(ids) for ids in openings]
        self._size = size

    def mask(self):
        held = self._inner.mask()
        if held is not None or not self._todo:
            return held
        mask = np.zeros(self._size, bool)
        mask[self._todo[0][0]] = True
        return mask

    def accept(self, token_id):
        if self._todo and self._inner.mask() is None:
            self._todo[0].pop(0)
            if not self._todo[0]:
                self._todo.pop(0)
        self._inner.accept(token_id)


def opened(local, count):
    """A constraint by which the shipped model makes so many calls, with arguments that have an end."""
    tools = [tool for tool in FUNCTIONS if tool["function"]["name"] != "note"]
    request = AnswerRequest("m", messages=[], tools=tools)
    inner = plan_constraint(local, DIALECTS["qwen3-hermes"], request, "")()
    opening = local.model.tokenizer.encode("<tool_call>\n{", adds_special=False)
    return Opens(inner, [opening] * count, local.model.spec.vocab_size)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_the_shipped_model_writes_calls_that_are_right(local, temperature):
    options = {"temperature": temperature, "seed": 5, "max_tokens": 600}
    answer = local.model.generate("Once", constraint=opened(local, 3), **options)
    calls = calls_in("qwen3-hermes", local.model.tokenizer.decode_all(answer.token_ids))
    assert len(calls) == 3
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_drafts_and_batches_change_no_token_of_held_calls(local):
    prompt = local.model.tokenizer.encode("Once upon")
    asked = [{"temperature": 1.0, "seed": seed, "max_tokens": 150} for seed in (1, 2)]
    alone = [local.model.generate(prompt, constraint=opened(local, 2), **options) for options in asked]
    assert alone[0].token_ids != alone[1].token_ids
    drafter = KnowingDrafter(alone[0].token_ids, len(prompt), mistake_every=3)
    drafted = with_drafter(local.model, drafter).generate(prompt, constraint=opened(local, 2), **asked[0])
    assert drafted.token_ids == alone[0].token_ids
    assert drafted.num_accepted > 0
    with ThreadPoolExecutor(2) as threads:
        both = [
            threads.submit(local.model.generate, prompt, constraint=opened(local, 2), **options)
            for options in asked
        ]
    assert [future.result().token_ids for future in both] == [answer.token_ids for answer in alone]
