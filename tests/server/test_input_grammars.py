"""Grammars of custom tools' inputs: what a call writes of them within JSON, or as it is."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server.test_constraints import marked_tokenizer
from server.test_response_tools import PATCH, read, streamed

from edgemoe.server.call_constraint import CallConstraint
from edgemoe.server.dialects import DIALECTS, Call, JsonForm, PythonForm
from edgemoe.server.escaped_tokens import Reading, read_escaped
from edgemoe.server.failures import Failure
from edgemoe.server.grammar import Function, call_grammar, input_marks
from edgemoe.server.input_text import EscapedText
from edgemoe.server.lark import of_regex
from edgemoe.server.openai.response_tools import custom_input

# In the manner of Codex's own grammar of patches, of a few lines.
PATCHES = r"""
start: "*** Begin" LF file{1,2} "*** End" LF?
file: "*** Add: " NAME LF line line
NAME: /[a-c]{1,4}\.txt/
line: "+" /[a-c"\\\t]{0,3}/ LF
%import common.LF
"""
A_PATCH = re.compile(
    r"\*\*\* Begin\n(\*\*\* Add: [a-c]{1,4}\.txt\n(\+[a-c\"\\\t]{0,3}\n){2}){1,2}\*\*\* End\n?"
)
# A rule that contains itself: no regular expression says this.
NESTED = r"""
start: list
list: "[" (list | WORD) ("," (list | WORD))* "]"
WORD: /"(\\"|[a-z\n])*"/
"""
ANYTHING = "start: /(?s:.*)/"
SCHEMA = {"type": "object", "properties": {"input": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": SCHEMA}}]
CUSTOM = {"type": "custom", "name": "apply_patch"}


def with_grammar(definition, syntax="lark"):
    return PATCH | {"format": {"type": "grammar", "syntax": syntax, "definition": definition}}


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_a_call_that_must_be_made_keeps_to_its_grammar(http, temperature):
    item, _ = streamed(
        http,
        tools=[with_grammar(PATCHES)],
        tool_choice=CUSTOM,
        temperature=temperature,
        seed=1,
        max_output_tokens=500,
    )
    assert (item["type"], item["name"]) == ("custom_tool_call", "apply_patch")
    assert A_PATCH.fullmatch(item["input"])


def test_one_of_several_tools_is_called_by_its_own_grammar(http):
    tools = [
        with_grammar('start: "a\\n" | "b\\t\\"\\\\"'),
        with_grammar("x{2}y?", "regex") | {"name": "other"},
    ]
    seen = set()
    for seed in range(6):
        item, _ = streamed(http, tools=tools, tool_choice="required", temperature=1.5, seed=seed)
        seen.add(item["name"])
        assert item["input"] in ({"a\n", 'b\t"\\'} if item["name"] == "apply_patch" else {"xx", "xxy"})
    assert seen


@pytest.mark.parametrize(
    "definition",
    [
        "start: nowhere",
        'start: "a" <[3]>',
        "start: /(?=a)b/",
        "%import python.INT\nstart: INT",
        'start: %json {"type": "object"}',
        "start: r0\n" + "\n".join(f'r{n}: "a" r{n + 1}' for n in range(6000)) + '\nr6000: "b"',
        "start: " + "(" * 3000 + '"a"' + ")" * 3000,
    ],
    ids=["unknown", "token", "lookaround", "import", "json", "deep", "nested"],
)
def test_a_grammar_that_cannot_be_kept_to_is_refused_by_name(http, definition):
    body = {"model": "demo", "input": "Go.", "tools": [with_grammar(definition)]}
    answer = http.post("/v1/responses", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "tools[0].format.definition"
    with pytest.raises(Failure, match="cannot be kept to"):
        read(tools=[with_grammar(r"(?<=a)b", "regex")])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"ab", Reading(b"ab", False)),
        (b'a\\"b\\n', Reading(b'a"b\n', False)),
        (b"a\\\\", Reading(b"a\\", False)),
        (b"a\\", Reading(b"a", True)),
        ("ü\\t".encode(), Reading("ü\t".encode(), False)),
        (b'a"', None),
        (b"a\n", None),
        (b"\\u0041", None),
        (b"\\x", None),
    ],
)
def test_what_bytes_within_a_string_mean(written, meant):
    assert read_escaped(written) == meant


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    return marked_tokenizer(tmp_path_factory.mktemp("marked"))


def call_of(marked, family, grammar):
    tokenizer, vocabulary = marked
    forced = DIALECTS[family].forced_call
    made = call_grammar([Function("f", {}, grammar)], forced.begins, [forced.form], tokenizer.special_ids())
    return CallConstraint(vocabulary, made)


def written_call(family, text):
    forced = DIALECTS[family].forced_call
    before = forced.begins + forced.form.before.replace("{name}", "f")
    if isinstance(forced.form, JsonForm):
        return before + json.dumps({"input": text}, ensure_ascii=False) + forced.form.after
    opens, closes = input_marks(forced.form)
    if isinstance(forced.form, PythonForm):  # its strings are written as JSON's may be
        opens, text, closes = opens[:-1], json.dumps(text, ensure_ascii=False), closes[1:]
    return before + opens + text + closes + forced.form.after


def is_allowed(marked, family, grammar, text):
    """Whether a call with this input can be written, to its end."""
    constraint = call_of(marked, family, grammar)
    for token_id in marked[0].encode(written_call(family, text), adds_special=False):
        if not constraint.mask()[token_id]:
            return False
        constraint.accept(token_id)
    constraint.mask()
    return constraint.is_over


@pytest.mark.parametrize("family", DIALECTS)
@pytest.mark.parametrize(
    ("grammar", "text", "fits"),
    [
        (PATCHES, '*** Begin\n*** Add: ab.txt\n+a"\\\n+\t\n*** End\n', True),
        (PATCHES, '*** Begin\n*** Add: ab.txt\n+a"\\\n+\t\n*** End', True),
        (PATCHES, "*** Begin\n*** Add: d", False),
        (PATCHES, "*** Begin\n*** Add: a.txt\n+\n*** End", False),
        (NESTED, '["a",["b\n",["\\"c"]],"d"]', True),
        (NESTED, '["a",["b\n",["\\"c"],"d"]', False),
        (of_regex(r"^a/\\\n\"{2}$"), 'a/\\\n""', True),
        (of_regex("[^x]+"), 'ü\n"\\', True),
        (of_regex("[^x]+"), "axa", False),
    ],
    ids=["patch", "without end", "name", "lines", "nested", "unbalanced", "regex", "all but", "that"],
)
def test_inputs_are_held_to_their_grammar_in_every_family(marked, family, grammar, text, fits):
    assert is_allowed(marked, family, grammar, text) == fits
    if fits:
        reader = DIALECTS[family].reader("", TOOLS, takes_calls=True)
        calls = reader.push(written_call(family, text)) + reader.finish(is_cut=False)
        (call,) = [item for item in calls if isinstance(item, Call)]
        assert custom_input(call.arguments) == text


LETTERS = st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from('"\\\n\t\r\b\f')


@given(st.text(LETTERS, max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_written_within_json(marked, text):
    assert is_allowed(marked, "qwen3-hermes", ANYTHING, text)


# What tokens of real vocabularies hold: whole escapes, halves of them, and what may follow a half.
PIECES = ["\\\\", "\\n", '\\"', "a\\", "na", "nn", '"a', "\\\\\\", "n\\", 'a"', '"}', "aa", "\\na\\"]
SHORT = 'start: /[an"\\\\\\n]{0,8}/'


@pytest.fixture(scope="module")
def pieced(tmp_path_factory):
    tokenizer, vocabulary = marked_tokenizer(tmp_path_factory.mktemp("pieced"), PIECES)
    ids = {piece: tokenizer.token_id(piece) for piece in [*PIECES, "a", "n", "\\", '"', "}"]}
    return vocabulary, ids


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_text_within_json_may_be_cut_into_any_tokens(pieced, data):
    vocabulary, ids = pieced
    text = data.draw(st.text('an"\\\n', max_size=8))
    rest, written = json.dumps(text)[1:-1], EscapedText(vocabulary.escaped, SHORT)
    while rest:
        mask, _ = written.allowed()
        fitting = [piece for piece in ids if rest.startswith(piece)]
        assert all(mask[ids[piece]] for piece in fitting)
        piece = data.draw(st.sampled_from(fitting))
        written.accept(ids[piece])
        rest = rest[len(piece) :]
    assert written.allowed()[1]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_tokens_are_allowed_within_json_make_a_text_that_fits(pieced, data):
    vocabulary, ids = pieced
    written, text = EscapedText(vocabulary.escaped, SHORT), ""
    for _ in range(data.draw(st.integers(0, 8))):
        mask, may_end = written.allowed()
        allowed = [piece for piece, token_id in ids.items() if mask[token_id]]
        assert allowed or may_end
        if not allowed:
            break
        piece = data.draw(st.sampled_from(allowed))
        written.accept(ids[piece])
        text += piece
    if written.allowed()[1]:
        assert re.fullmatch(r'[an"\\\n]{0,8}', json.loads(f'"{text}"'))
