"""Schemas and calls that must be made: even a tiny model keeps to them."""

from __future__ import annotations

import json

import openai
import pytest

from edgemoe.server.call_constraint import CallConstraint
from edgemoe.server.constraint import Vocabulary
from edgemoe.server.dialects import DIALECTS, Call
from edgemoe.server.grammar import Function, call_grammar, json_grammar
from edgemoe.server.schema_levels import is_too_deep

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"],
        "additionalProperties": False}  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "Weather.", "parameters": WEATHER},
    },
    {"type": "function", "function": {"name": "get_time", "parameters": TIME}},
]


def assert_weather(arguments):
    assert arguments["city"] in {"Paris", "Oslo"}
    assert 1 <= arguments["days"] <= 9


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_schema_is_kept_to(openai_client, temperature):
    form = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": WEATHER}}
    done = openai_client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=60, temperature=temperature, seed=3, response_format=form
    )
    assert done.choices[0].finish_reason == "stop"
    assert_weather(json.loads(done.choices[0].message.content))


def test_a_schema_that_makes_no_sense_is_refused(openai_client):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "frobnicate"}}}
    with pytest.raises(openai.BadRequestError, match="response_format: the schema cannot be used"):
        openai_client.chat.completions.create(model="demo", messages=ASK, response_format=form)


def test_json_objects_begin_as_such(openai_client):
    done = openai_client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=8, response_format={"type": "json_object"}
    )
    assert done.choices[0].message.content.startswith("{")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "get_weather"}}],
    ids=["required", "named"],
)
def test_a_call_that_must_be_made_is_made(openai_client, choice, stream):
    answer = openai_client.chat.completions.create(
        model="demo", messages=ASK, tools=TOOLS, tool_choice=choice, max_tokens=120, stream=stream
    )
    if stream:
        chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
        deltas = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
        name, arguments = deltas[0].function.name, "".join(d.function.arguments for d in deltas)
        assert deltas[0].id
        assert {delta.index for delta in deltas} == {0}
        assert not any(chunk.delta.content for chunk in chunks)
        reason = chunks[-1].finish_reason
    else:
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
        reason = answer.choices[0].finish_reason
        assert answer.choices[0].message.content is None
    assert reason == "tool_calls"
    assert name in {"get_weather", "get_time"}
    assert choice == "required" or name == "get_weather"
    if name == "get_weather":
        assert_weather(json.loads(arguments))


def test_anthropics_client_gets_its_tool_use(anthropic_client):
    tools = [{"name": "get_weather", "description": "Weather.", "input_schema": WEATHER}]
    with anthropic_client.messages.stream(
        model="demo",
        max_tokens=120,
        messages=ASK,
        tools=tools,
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    (block,) = final.content
    assert block.type == "tool_use"
    assert_weather(block.input)
    follow_up = [
        *ASK,
        {"role": "assistant", "content": [block.model_dump(include={"type", "id", "name", "input"})]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "Sunny."}]},
    ]
    done = anthropic_client.messages.create(model="demo", max_tokens=5, messages=follow_up, tools=tools)
    assert done.content


def test_logprobs_are_those_of_the_tokens(openai_client):
    done = openai_client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    tokens = done.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == done.choices[0].message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob <= 0  # the likeliest was taken


def test_a_bias_forbids_a_token(openai_client, http):
    plain = openai_client.completions.create(
        model="demo", prompt="Once", max_tokens=1, temperature=0, logprobs=0
    )
    first = plain.choices[0].logprobs.tokens[0]
    done = openai_client.completions.create(
        model="demo", prompt="Once", max_tokens=8, temperature=0,
        logit_bias={str(number): -100 for number in range(300, 1300)},
    )  # fmt: skip
    assert first
    assert done.choices[0].text != plain.choices[0].text


MARKS = [
    "<end>",
    "<|channel|>",
    "<|constrain|>",
    "<|end|>",
    "<|message|>",
    "<|start|>",
    "<|tool_call>",
    "<|tool_call_end|>",
    "<|tool_call_start|>",
    '<|"|>',
    "<tool_call>",
    "<tool_call|>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "[ARGS]",
    "[TOOL_CALLS]",
]


def marked_tokenizer(folder, pieces=()):
    """A tokenizer in which the marks of some families are special tokens and all else are bytes, and its
    vocabulary. ``pieces`` are further tokens, which it makes of no text by itself.
    """
    tokenizers = pytest.importorskip("tokenizers")
    from edgemoe.text.tokenizer import Tokenizer

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={text: n for n, text in enumerate([*alphabet, *pieces])}, merges=[])
    built = tokenizers.Tokenizer(model)
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    built.add_special_tokens(MARKS)
    built.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder, {"eos_token_id": built.token_to_id("<end>")})
    return tokenizer, Vocabulary(tokenizer, built.get_vocab_size(), tokenizer.stop_ids)


@pytest.mark.parametrize("family", DIALECTS)
def test_calls_that_must_be_made_are_read_in_every_family(family, tmp_path):
    """Follow the grammar by its first allowed token: what comes out is what the family's reader reads."""
    tokenizer, vocabulary = marked_tokenizer(tmp_path)
    dialect = DIALECTS[family]
    forced = dialect.forced_call
    function = Function("get_weather", WEATHER)
    grammar = call_grammar([function], forced.begins, [forced.form], tokenizer.special_ids())
    assert vocabulary.check(grammar.grammar) == ""
    constraint, ids = CallConstraint(vocabulary, grammar), []
    while True:
        allowed = constraint.mask().nonzero()[0]
        if tokenizer.stop_ids.intersection(allowed.tolist()) or len(ids) > 400:
            break
        ids.append(int(allowed[0]))
        constraint.accept(ids[-1])
    reader = dialect.reader("", TOOLS, takes_calls=True)
    (call,) = reader.push(tokenizer.decode_all(ids)) + reader.finish(is_cut=False)
    assert isinstance(call, Call)
    assert call.name == "get_weather"
    assert_weather(json.loads(call.arguments))


def test_json_grammars_have_fixed_whitespace():
    assert (
        json.loads(json_grammar(WEATHER))["grammars"][0]["json_schema"]["properties"] == WEATHER["properties"]
    )


def chain(length):
    """A schema whose definitions lead through each other."""
    steps = {f"d{n}": {"properties": {"x": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(length)}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": steps | {f"d{length}": {"type": "integer"}}}


def test_a_schema_that_would_end_the_process_is_refused(http):
    """llguidance goes down one call per definition, and has no bound of its own."""
    deep = {"type": "json_schema", "json_schema": {"name": "deep", "schema": chain(3000)}}
    body = {"model": "demo", "messages": ASK, "max_tokens": 2, "response_format": deep}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert "more than 1000 levels" in answer.json()["error"]["message"]
    assert http.get("/health").status_code == 200


@pytest.mark.parametrize(("length", "is_deep"), [(300, False), (333, True)])
def test_levels_count_through_references(length, is_deep):
    assert is_too_deep(chain(length)) == is_deep  # three for each definition
    wide = {"$defs": {str(n): {"type": "string"} for n in range(2000)}}
    wide |= {"properties": {str(n): {"$ref": "#/$defs/1"} for n in range(2000)}}
    assert not is_too_deep(wide)
    itself = {
        "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}, "c": {"$ref": "#"}}}},
        "$ref": "#/$defs/a",
    }
    assert not is_too_deep(itself)


def chain_by(reference, more=lambda n: {}, length=1500):
    """A chain whose definitions are called in another way; ``more``: what each has beside."""
    steps = {f"d{n}": {"properties": {"x": {"$ref": reference(n + 1)}}} | more(n) for n in range(length)}
    return {"$ref": reference(0), "$defs": steps | {f"d{length}": {"type": "null"} | more(length)}}


OTHER_WAYS = {
    "codes": chain_by(lambda n: f"#/%24defs/d{n}"),
    "codes in names": chain_by(lambda n: f"#/$defs/%64{n}"),
    "an address": {"$id": "x:/z"} | chain_by(lambda n: f"x:/z#/$defs/d{n}"),
    "names": chain_by(lambda n: f"#a{n}", lambda n: {"$anchor": f"a{n}"}),
    "addresses": chain_by(lambda n: f"x:/{n}", lambda n: {"$id": f"x:/{n}"}),
    "old addresses": {"$schema": "http://json-schema.org/draft-04/schema#"}
    | chain_by(lambda n: f"x:/{n}", lambda n: {"id": f"x:/{n}"}),
    "addresses, and the same places in each": {
        "$ref": "x:/0",
        "$defs": {
            f"r{part}": {"$id": f"x:/{part}"}
            | chain_by(lambda n, part=part: f"#/$defs/d{n}" if n < 50 else f"x:/{part + 1}", length=50)
            for part in range(50)
        },
    },
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_levels_count_however_definitions_are_called(way):
    """Each of these, made longer, ended the process."""
    assert is_too_deep(OTHER_WAYS[way])


@pytest.mark.parametrize(
    "small",
    [
        chain_by(lambda n: f"#/%24defs/d{n}", length=100),
        {"$id": "x:/z"} | chain_by(lambda n: f"x:/z#/$defs/d{n}", length=100),
        chain_by(lambda n: f"x:/{n}", lambda n: {"$id": f"x:/{n}"}, length=100),
        {"properties": {"id": {"type": "string", "default": {"id": "x"}}}}
        | chain_by(lambda n: f"#/$defs/d{n}", length=250),
    ],
)
def test_schemas_that_are_not_deep_may_have_addresses(small):
    assert not is_too_deep(small)
