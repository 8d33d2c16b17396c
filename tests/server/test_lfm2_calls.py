"""LFM2's calls: what its models are reported to write, read and held."""

from __future__ import annotations

import json

import pytest
from server.test_constraints import marked_tokenizer
from server.test_held_calls import FUNCTIONS, Marked, calls_in, constraint_of, follow, python

from edgemoe.server.constraining import plan_constraint
from edgemoe.server.dialects import DIALECTS, Call, find_dialect
from edgemoe.server.events import Reasoning, Text
from edgemoe.server.request import AnswerRequest

START, END = "<|tool_call_start|>", "<|tool_call_end|>"


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    return Marked(*marked_tokenizer(tmp_path_factory.mktemp("marked")))


def read(text):
    """All calls of one list, as name and arguments; the text itself if it is none."""
    reader = DIALECTS["lfm2"].reader("", FUNCTIONS, takes_calls=True)
    items = reader.push(START + text + END) + reader.finish(is_cut=False)
    if all(isinstance(item, Call) for item in items):
        return [(item.name, json.loads(item.arguments)) for item in items]
    return "".join(item.text for item in items)


@pytest.mark.parametrize(
    "sign", ["List of tools: <|tool_list_start|>[", "List of tools: {{ tools | tojson }}", START]
)
def test_the_family_is_known_by_its_templates(sign):
    assert find_dialect("{% for m in messages %}<|im_start|>" + sign).name == "lfm2"


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("f()", {}),
        ("f(city='Paris', days=2, on=True, off=false, none=None)",
         {"city": "Paris", "days": 2, "on": True, "off": False, "none": None}),
        ("f(x=-74.25, e=1e3, size=(800, 600))", {"x": -74.25, "e": 1000.0, "size": [800, 600]}),
        ("""f(a=[1, {"b": 'c', 'd': [True, None]}], )""", {"a": [1, {"b": "c", "d": [True, None]}]}),
        ("""f(a='grep -F "]" log.txt')""", {"a": 'grep -F "]" log.txt'}),
        ("f(a='one\ntwo')", {"a": "one\ntwo"}),
        (r"f(a='one\ntwo\\', b='\d \x41 \u00fc')", {"a": "one\ntwo\\", "b": "\\d A ü"}),
        ("f(a='it's, well, (so) ')", {"a": "it's, well, (so) "}),
        ("f(a='print('hi')\nlabel=''', b=1)", {"a": "print('hi')\nlabel=''", "b": 1}),
        ("f(a='''x 'y' ''', b=\"\"\"z\"\"\")", {"a": "x 'y' ", "b": "z"}),
        ("f(from=1, class='x')", {"from": 1, "class": "x"}),
        ("f(zip=01234, city=Paris)", {"zip": "01234", "city": "Paris"}),
        (f"f(a='{END}')", {"a": END}),
        ("f(a=NaN)", {"a": "NaN"}),
    ],
)  # fmt: skip
def test_arguments_are_read_as_meant(written, arguments):
    assert read(f"[{written}]") == [("f", arguments)]
    assert read(f" [{written}, g.h(x='y')]") == [("f", arguments), ("g.h", {"x": "y"})]


def test_words_are_texts_where_the_schema_says_so():
    reader = DIALECTS["lfm2"].reader("", FUNCTIONS, takes_calls=True)
    (call,) = reader.push(f"{START}[get_weather(city=007x, days=2)]{END}")
    assert json.loads(call.arguments) == {"city": "007x", "days": 2}


def test_lists_of_json_are_read_too():
    both = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]
    assert read(json.dumps(both)) == [("f", {"a": 1}), ("g", {})]


@pytest.mark.parametrize(
    "text",
    [
        "[f('x')]",
        "[f(a=)]",
        "[]",
        "f",
        "[f(a='x]",
        "[f(a=1) b]",
        "[f(a=" + "[" * 9000,
        "[f(a='" + ("')" + " " * 300) * 300 + "x]",
    ],
)
def test_what_is_no_call_is_text(text):
    assert read(text) == START + text + END


def test_thought_text_and_calls_are_told_apart():
    text = f"<think>Hm.</think>I look.\n{START}[f(a=1), g()]{END}Done."
    reader = DIALECTS["lfm2"].reader("", FUNCTIONS, takes_calls=True)
    out = [item for letter in text for item in reader.push(letter)] + reader.finish(is_cut=False)
    told = {kind: "".join(item.text for item in out if isinstance(item, kind)) for kind in (Reasoning, Text)}
    assert told == {Reasoning: "Hm.", Text: "I look.Done."}
    assert [item.name for item in out if isinstance(item, Call)] == ["f", "g"]


@pytest.mark.parametrize(
    "text",
    [
        "[get_time(zone='UTC'), get_weather(city=\"Paris\", days=2)]",
        " [note(text='it's \\'so\\'\n', tags=['a', {'b': None}])]",
        '[{"name": "get_time", "arguments": {"zone": "UTC"}}, {"name": "note", "arguments": {"text": "a"}}]',
    ],
)
def test_lists_may_be_written(marked, text):
    whole = f"I look.{START}{text}{END} Well."
    assert follow(marked, constraint_of(marked, "lfm2"), whole) == (whole, True)
    assert len(calls_in("lfm2", whole)) == text.count("(") + text.count('"name"')


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("[get_time(zone='UTC'), get_wealth(", "[get_time(zone='UTC'), get_wea"),
        ("[get_weather(days=2", "[get_weather("),
        ("[get_time(zone='UTC', zone", "[get_time(zone='UTC'"),
        ("[get_time('UTC')", "[get_time("),
    ],
)
def test_what_no_function_takes_cannot_be_written_in_a_list(marked, text, allowed):
    assert follow(marked, constraint_of(marked, "lfm2"), START + text)[0] == START + allowed


def test_optional_arguments_may_be_left_out_anywhere(marked):
    names = "abc"
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in names},
        "required": ["b"],
    }
    tools = [{"type": "function", "function": {"name": "f", "description": "", "parameters": schema}}]
    for given, fits in (("b", True), ("ab", True), ("bc", True), ("abc", True), ("ac", False), ("", False)):
        text = python("f", dict.fromkeys(given, 1))
        constraint = plan_constraint(
            marked, DIALECTS["lfm2"], AnswerRequest("m", messages=[], tools=tools), ""
        )()
        assert (follow(marked, constraint, text)[0] == text) is fits
