"""Text as public bug reports have it: streams, tokenizer files as others leave them, chat templates."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import tokenizers

transformers = pytest.importorskip("transformers")
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.vocabularies import KINDS, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemoe import ConvertOptions, convert_model, load
from edgemoe.errors import RequestError, StoreError
from edgemoe.text import StreamDecoder, Tokenizer

SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
USER = [{"role": "user", "content": "hi"}]
CHAT = [*USER, {"role": "assistant", "content": "yo"}, {"role": "user", "content": "a"}]


def write_folder(folder, kind="byte-level", config=SETTINGS, changes=None, **files):
    """A tokenizer's folder; ``changes`` are made to tokenizer.json, files have "__" for "."."""
    folder.mkdir(exist_ok=True)
    record = json.loads(make_tokenizer(kind).to_str()) | (changes or {})
    (folder / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, "utf-8")
    return folder


def theirs(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("is_special", [False, True])
def test_added_tokens_show_their_own_letters(tmp_path, is_special):
    """The library takes them for bytes: "đ" is U+0111, which stands for byte 17 in such vocabularies."""
    made = make_tokenizer("byte-level")
    texts = ["đem", "ilÖ"]
    made.add_tokens([tokenizers.AddedToken(text, normalized=False, special=is_special) for text in texts])
    ours = Tokenizer(write_folder(tmp_path / "x", changes=json.loads(made.to_str())), {})
    whole, shown = "b日 đem ilÖilÖ é", "b日   é" if is_special else "b日 đem ilÖilÖ é"
    answer = ours.encode(whole)
    assert {*map(ours.token_id, texts)} <= {*answer}
    assert ours.decode(answer) == shown
    assert ours.decode_all(answer) == whole
    assert streamed(ours, ours.encode("a é"), answer) == shown
    assert b"".join(map(ours.bytes_of, answer)).decode() == whole


def test_an_added_letter_that_is_a_byte_of_the_vocabulary_stays_that_byte(tmp_path):
    """ "č" is the letter of byte 13, so one token stands for both, and a text has the byte."""
    made = make_tokenizer("byte-level")
    made.add_tokens(["č"])
    ours = Tokenizer(write_folder(tmp_path / "x", changes=json.loads(made.to_str())), {})
    assert ours.decode(ours.encode("a\r\nb")) == "a\r\nb"


@pytest.fixture(scope="module")
def tokenizers_of_all_kinds(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    found = {kind: Tokenizer(write_folder(root / kind, kind), {}) for kind in KINDS}
    tidied = {**SETTINGS, "clean_up_tokenization_spaces": True}
    return found | {"tidied": Tokenizer(write_folder(root / "tidied", "word-piece", tidied), {})}


def streamed(tokenizer, prompt, answer):
    decoder = StreamDecoder(tokenizer, prompt)
    return "".join([*map(decoder.push, answer), decoder.flush()])


@pytest.mark.parametrize("kind", [*KINDS, "tidied"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_streamed_text_is_the_whole_decode(tokenizers_of_all_kinds, kind, data):
    tokenizer = tokenizers_of_all_kinds[kind]
    size = tokenizer._require().get_vocab_size()
    # Few different bytes, so that whole characters come up as often as broken ones.
    some = [i for i in (*range(12), 3 + 0xC3, 3 + 0xA9, *range(size - 14, size)) if 0 <= i < size]
    answer = data.draw(st.lists(st.sampled_from(some), max_size=24))
    prompt = data.draw(st.lists(st.sampled_from(some), max_size=24))
    assert streamed(tokenizer, [], answer) == tokenizer.decode(answer)
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *answer])
    if whole.startswith(before) and not before.endswith("\ufffd"):
        assert before + streamed(tokenizer, prompt, answer) == whole


def test_text_comes_as_soon_as_it_is_certain(tokenizers_of_all_kinds):
    tokenizer = tokenizers_of_all_kinds["llama"]
    ids = tokenizer.encode("aéb", adds_special=False)
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in ids][-1] == "b"
    decoder = StreamDecoder(tokenizer)
    e = [3 + byte for byte in "é".encode()]
    a = tokenizer._require().token_to_id("a")
    assert [decoder.push(i) for i in [a, *e, *e, a]] == ["a", "", "", "", "", "ééa"]


def test_a_stop_text_is_shown_as_soon_as_it_is_there(tokenizers_of_all_kinds):
    tokenizer = tokenizers_of_all_kinds["llama"]
    a, newline = tokenizer._require().token_to_id("a"), 3 + 0x0A
    e = [3 + byte for byte in "é".encode()]

    def pieces(stop, answer):
        decoder = StreamDecoder(tokenizer, [], [stop])
        return [decoder.push(i) for i in answer]

    assert pieces("\n", [a, newline, newline]) == ["a", "\n", "\n"]
    assert pieces("\n\n", [a, newline, newline]) == ["a", "", "\n\n"]
    assert pieces("a\n", [a, newline]) == ["a", "\n"]
    assert pieces("é", [newline, *e, a]) == ["", "", "\né", "a"]
    assert pieces("\ufffd", [a, e[0]]) == ["a", ""]
    tidied = tokenizers_of_all_kinds["tidied"]
    a, do = (tidied._require().token_to_id(token) for token in ("a", "do"))
    decoder = StreamDecoder(tidied, [], ["do"])
    assert [decoder.push(i) for i in (a, do)] == ["", "a do"]


def test_a_stop_text_in_bytes_ends_an_answer(tmp_path):
    """Newlines are bytes in the vocabularies of Llama 2 and Mixtral."""
    folder = write_folder(write_checkpoint(tmp_path / "model", "mixtral"), "llama")
    convert_model(folder, tmp_path / "store", ConvertOptions(bits=8))
    newline = 3 + 0x0A

    class Newlines:
        def mask(self):
            return np.arange(VOCAB_SIZE) == newline

        def accept(self, token_id):
            pass

    with load(tmp_path / "store", memory="2GiB", context=32) as model:
        for stop, count in ("\n", 1), ("\n\n\n", 3):
            answer = model.generate([5, 6], max_tokens=count + 2, stop=stop, constraint=Newlines())
            assert (answer.token_ids, answer.text) == ([newline] * count, "")
            assert answer.finish_reason == "stop"


def test_a_word_after_a_prompt_keeps_its_space(tokenizers_of_all_kinds):
    tokenizer = tokenizers_of_all_kinds["llama"]
    word = [tokenizer._require().token_to_id("▁a")]
    assert streamed(tokenizer, tokenizer.encode("b"), word) == " a"
    assert streamed(tokenizer, [1], word) == "a"


LEFT = {
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>",
    },
}  # fmt: skip
IM_END = {"content": "<|im_end|>", "special": True, "normalized": False, "lstrip": False, "rstrip": False}
PLAIN = {**IM_END, "content": "<tool>", "special": False, "single_word": False, "normalized": True}
IDS = {
    "truncation": ({}, {"changes": {"truncation": LEFT["truncation"]}}),
    "padding": ({}, {"changes": {"padding": LEFT["padding"]}}),
    "added_tokens_decoder": ({"added_tokens_decoder": {"300": IM_END, "301": PLAIN}}, {}),
    "special_tokens_map": ({}, {"special_tokens_map__json": {"eos_token": IM_END, "pad_token": "<tool>"}}),
    "added_tokens": ({}, {"added_tokens__json": {"<tool>": 261, "<|im_end|>": 262}}),
    "additional": ({"additional_special_tokens": ["<|im_end|>", "<tool>"]}, {}),
    "extra named": ({"extra_special_tokens": {"image_token": "<tool>"}}, {}),
    "model's own": ({"boi_token": "<tool>"}, {}),
    "right strip": ({"eos_token": {**IM_END, "rstrip": True, "__type": "AddedToken"}}, {}),
    "not split": ({"split_special_tokens": True}, {}),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_are_those_of_transformers(tmp_path, name):
    config, more = IDS[name]
    folder = write_folder(tmp_path / "m", config=SETTINGS | config, **more)
    text = "The quick <tool> brown<|im_end|>  fox</s> jumps"
    ours, other = Tokenizer(folder, {}), theirs(folder)
    assert ours.encode(text) == other(text)["input_ids"]
    ids = other(text)["input_ids"]
    assert ours.decode(ids) == other.decode(ids, skip_special_tokens=True)
    assert ours.eos_id == other.eos_token_id


NAMED = {
    "named": ({"eos_token": "<|im_end|>"}, {}),
    "named in the map": ({}, {"special_tokens_map__json": {"pad_token": "<|im_end|>"}}),
    "extra": ({"additional_special_tokens": ["<|im_end|>"]}, {}),
    "extra in the map": ({}, {"special_tokens_map__json": {"additional_special_tokens": ["<|im_end|>"]}}),
    "extra in both": (
        {"additional_special_tokens": []},
        {"special_tokens_map__json": {"additional_special_tokens": ["<tool>"]}},
    ),
    "listed and extra": (
        {"added_tokens_decoder": {"261": {**IM_END, "rstrip": True}}, "extra_special_tokens": ["<|im_end|>"]},
        {},
    ),
    "listed otherwise": ({"added_tokens_decoder": {"261": IM_END}}, {}),
    "in the older file": ({}, {"added_tokens__json": {"<|im_end|>": 261}}),
}


@pytest.mark.parametrize("is_special", [True, False])
@pytest.mark.parametrize("name", NAMED)
def test_tokens_keep_the_flags_of_their_tokenizer(tmp_path, name, is_special):
    """Other files name a token by its text, which says nothing of the spaces that it takes along."""
    config, more = NAMED[name]
    whole = {"single_word": False, **IM_END}
    own = [{"id": i, **whole, "content": text} for i, text in enumerate(("<unk>", "<s>", "</s>"))]
    own.append({"id": 261, **whole, "rstrip": True, "lstrip": True, "special": is_special})
    folder = write_folder(tmp_path / "m", config=SETTINGS | config, changes={"added_tokens": own}, **more)
    text = "The quick <tool> brown <|im_end|>  fox</s> jumps"
    ours, other = Tokenizer(folder, {}), theirs(folder)
    ids = other(text)["input_ids"]
    assert ours.encode(text) == ids
    assert ours.decode(ids) == other.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("is_insisted", [True, False, None])
@pytest.mark.parametrize("kind", ["byte-level", "word-piece", "unigram"])
def test_spaces_are_tidied_where_transformers_does(tmp_path, kind, is_insisted):
    insists = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    config = SETTINGS | {"clean_up_tokenization_spaces": True, insists: is_insisted}
    folder = write_folder(tmp_path / "m", kind, config)
    ours, other = Tokenizer(folder, {}), theirs(folder)
    for text in ("a . b , do n't a 's", "ab ?"):
        ids = other(text)["input_ids"]
        assert ours.decode(ids) == other.decode(ids, skip_special_tokens=True)
        assert streamed(ours, [], ids) == ours.decode(ids)


def test_merges_that_training_left_out_at_random_are_made(tmp_path):
    record = json.loads(make_tokenizer("byte-level").to_str())["model"]
    size = len(record["vocab"])
    model = record | {"vocab": record["vocab"] | {"ab": size}, "merges": [["a", "b"]], "dropout": 0.9}
    ours = Tokenizer(write_folder(tmp_path / "m", changes={"model": model}), {})
    assert ours.encode("ab" * 100, adds_special=False) == [size] * 100


@pytest.mark.parametrize("eos", [None, [], 2, [2, None], [7, 2], [-1, 2], [None]])
def test_end_tokens_in_any_form(tmp_path, eos):
    folder = write_folder(tmp_path / "m", generation_config__json={"eos_token_id": eos})
    listed = eos if isinstance(eos, list) else [eos]
    assert Tokenizer(folder, {}).stop_ids == {2, *(i for i in listed if i is not None and i >= 0)}


def test_an_end_token_that_is_none_is_named(tmp_path):
    folder = write_folder(tmp_path / "m", generation_config__json={"eos_token_id": "</s>"})
    with pytest.raises(StoreError, match=r"generation_config\.json: eos_token_id has '</s>'"):
        Tokenizer(folder, {})


TEMPLATES = {
    "break": "{% for m in messages %}{% if m.role == 'assistant' %}{% break %}{% endif %}"
    "{{ m.content }}{% endfor %}",
    "continue": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}",
    "tools": "{% if tools is not none %}[TOOLS]{% endif %}{% if documents is none %}none{% endif %}",
    "named": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ sep_token is defined }}",
    "tojson": "{{ messages[0] | tojson }}{{ messages[0] | tojson(indent=2) }}"
    "{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}",
    "dict": "{{ dict(a=1, b=2) }}{{ dict.fromkeys(['x']) }}",
    "spaces": "  {% if true %}\n  a\n  {% endif %}\n{{- messages | length }}",
    "methods": "{{ messages[0].content.strip().split('i')[0] ~ '|' ~ messages[-1]['role'] | upper }}",
    "filters": "{{ messages | map(attribute='role') | join(',') }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    "{{ messages[1:] | length }}{{ (messages | reverse | list)[0].content }}",
    "loop": "{% for m in messages recursive %}{{ loop.index }}{{ loop.last }}{{ loop.previtem.content"
    " if loop.previtem }}{% else %}none{% endfor %}",
    "macro": "{% macro show(m, n=1) %}{{ m.content * n }}{% endmacro %}{{ show(messages[0], n=3) }}",
    "set": "{% set text %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ text | trim }}",
    "format": "{{ '%s-%d' % ('a', 3) }}{{ '{:>5}{}'.format('b', 1) }}{{ 'x' * 3 }}{{ 7 // 2 + 2 ** 3 }}",
    "reasoning": "{{ messages[0].reasoning_content is defined }}",
    "option": "{{ enable_thinking | default('unset') }}",
}


def rendered_by_both(folder, messages=CHAT, **options):
    ours = Tokenizer(folder, {}).render_chat(messages, **options)
    options = {"add_generation_prompt": True, **options}
    return ours, theirs(folder).apply_chat_template(messages, tokenize=False, **options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_in_transformers(tmp_path, name):
    config = SETTINGS | {"pad_token": "<s>"}
    folder = write_folder(tmp_path / "m", config=config, chat_template__jinja=TEMPLATES[name])
    ours, other = rendered_by_both(folder)
    assert ours == other


def test_what_users_pass_reaches_the_template(tmp_path):
    template = "{{ enable_thinking }}{{ tools | tojson }}{{ documents[0].title }}{{ bos_token }}"
    folder = write_folder(tmp_path / "m", chat_template__jinja=template)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    options = {"tools": tools, "documents": [{"title": "t", "text": ""}], "enable_thinking": False}
    ours, other = rendered_by_both(folder, **options)
    assert ours == other == 'False[{"type": "function", "function": {"name": "f", "parameters": {}}}]t<s>'


def test_thoughts_are_found_under_any_name(tmp_path):
    template = "{{ messages[0].thinking }}{{ messages[0].reasoning_content }}"
    folder = write_folder(tmp_path / "m", chat_template__jinja=template)
    ours, other = rendered_by_both(folder, [{"role": "assistant", "content": "a", "reasoning": "r"}])
    assert ours == other == "rr"


def test_null_in_a_message_is_a_key_that_is_not_there(tmp_path):
    """Clients send null with calls of tools; templates would write "None"."""
    template = "{{ messages[0].content }}|{{ messages[0] | tojson }}|{{ messages[0].flag }}"
    folder = write_folder(tmp_path / "m", chat_template__jinja=template)
    message = {"role": "assistant", "content": None, "name": None, "x": {"y": None}, "flag": np.bool_(False)}
    ours, other = rendered_by_both(folder, [message])
    assert ours == other


BEGUN = {
    "kept": "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}",
    "stripped": "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}",
    "parts": "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}</s>{% endfor %}",
}


@pytest.mark.parametrize("name", BEGUN)
@pytest.mark.parametrize("text", ["Sure, ", "Sure", "Sure\n\n"])
def test_an_answer_that_is_begun_is_left_open(tmp_path, name, text):
    """The end of the turn behind it would make the model begin another."""
    folder = write_folder(tmp_path / "m", chat_template__jinja=BEGUN[name])
    content = [{"type": "text", "text": text}] if name == "parts" else text
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    ours, other = rendered_by_both(folder, messages, **options)
    assert ours == other
    assert not ours.endswith("</s>")


@pytest.mark.parametrize(
    ("template", "messages"), [("{{ messages[0].content }}", CHAT), ("a", CHAT), ("a", []), ("a", [{}])]
)
def test_an_answer_that_cannot_go_on_is_said(tmp_path, template, messages):
    tokenizer = Tokenizer(write_folder(tmp_path / "m", chat_template__jinja=template), {})
    with pytest.raises(RequestError, match="last message"):
        tokenizer.render_chat(messages, continue_final_message=True)


def test_templates_without_a_default_are_named(tmp_path):
    named = [{"name": "rag", "template": "R"}]
    tokenizer = Tokenizer(write_folder(tmp_path / "m", config=SETTINGS | {"chat_template": named}), {})
    with pytest.raises(RequestError, match=r"special purposes \(rag\), none is the default"):
        tokenizer.render_chat(USER)


def test_the_template_for_tools_is_taken_with_tools(tmp_path):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    folder = write_folder(tmp_path / "m", config=SETTINGS | {"chat_template": named})
    tokenizer = Tokenizer(folder, {})
    assert tuple(tokenizer.chat_templates()) == ("default", "tool_use")
    assert tokenizer.render_chat(USER) == "plain"
    assert tokenizer.render_chat(USER, tools=[]) == "tools"
    shutil.copytree(folder, tmp_path / "files")
    (tmp_path / "files" / "additional_chat_templates").mkdir()
    (tmp_path / "files" / "additional_chat_templates" / "tool_use.jinja").write_text("from a file")
    (tmp_path / "files" / "chat_template.jinja").write_text("also from a file")
    assert Tokenizer(tmp_path / "files", {}).render_chat(USER, tools=[]) == "from a file"


FAULTS = {
    "own words": ("{{ raise_exception('roles must alternate') }}", "conversation: roles must alternate$"),
    "not a template": ("{% if %}", "TemplateSyntaxError"),
    "no filter": ("{{ 'a' | nothing }}", "No filter named"),
    "division": ("{{ 1 // 0 }}", "ZeroDivisionError"),
    "types": ("{{ 'a' + 1 }}", "TypeError"),
    "keys": ("{{ messages[0].content.index('?') }}", "ValueError"),
    "no such thing": ("{{ nothing.more }}", "UndefinedError"),
    "inside": ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    "other files": ("{% include 'a' %}", "TypeError"),
    "deep": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deep"),
    "parentheses": ("{{ " + "(" * 100_000 + " }}", "refuses this conversation"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_a_template_is_one_line(tmp_path, name):
    template, message = FAULTS[name]
    tokenizer = Tokenizer(write_folder(tmp_path / "m", chat_template__jinja=template), {})
    with pytest.raises(RequestError, match=message) as caught:
        tokenizer.render_chat(USER)
    assert "\n" not in str(caught.value)


def test_messages_that_are_none_are_refused(tmp_path):
    tokenizer = Tokenizer(write_folder(tmp_path / "m", chat_template__jinja="{{ messages }}"), {})
    with pytest.raises(RequestError, match="a message is 'hi'"):
        tokenizer.render_chat(["hi"])


DAMAGED = {
    "tokenizer.json": ['{"model": {}}', "[" * 100_000, "", "\x00", '{"version": 1'],
    "tokenizer_config.json": [
        "[]", "[" * 100_000, "{", '{"added_tokens_decoder": 3}', '{"added_tokens_decoder": {"x": {}}}',
        '{"chat_template": 5}', '{"bos_token": [1]}', '{"extra_special_tokens": [5]}',
    ],
    "generation_config.json": ['{"eos_token_id": true}', "null"],
    "added_tokens.json": ['{"a": "b"}'],
    "special_tokens_map.json": ['{"eos_token": 5}'],
}  # fmt: skip


@pytest.mark.parametrize(("file", "content"), [(f, c) for f, all_ in DAMAGED.items() for c in all_])
def test_damaged_files_are_one_line(tmp_path, file, content):
    folder = write_folder(tmp_path / "m")
    (folder / file).write_text(content)
    with pytest.raises(StoreError) as caught:
        Tokenizer(folder, {}).chat_templates()
    assert "\n" not in str(caught.value)


def test_files_that_are_not_utf8_are_one_line(tmp_path):
    folder = write_folder(tmp_path / "m")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        path = folder / file
        kept = path.read_bytes() if path.exists() else b""
        path.write_bytes(b'{"a": "\xff"}')
        with pytest.raises(StoreError, match="is not UTF-8"):
            Tokenizer(folder, {}).chat_templates()
        path.write_bytes(kept or b"{}")


DOUBLING = (
    "{{% set ns = namespace(s={0}) %}}{{% for i in range(60) %}}{{% set ns.s = {1} %}}{{% endfor %}}"
    "{{{{ ns.s }}}}"
)
GREEDY = {
    "ranges in ranges": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'a' * (3 * 2**30) }}",
    "a long list": "{{ [1] * 10**9 }}",
    "a long number": DOUBLING.format("10", "ns.n ** 2").replace("ns.n", "ns.s"),
    "doubled text": DOUBLING.format("'ab'", "ns.s ~ ns.s"),
    "doubled list": DOUBLING.format("[1]", "[ns.s, ns.s]"),
    "doubled object": DOUBLING.format("1", "dict(a=ns.s, b=ns.s)"),
    "filled up": "{{ 'a' | center(10**9) }}",
    "filled up by a method": "{{ 'a'.ljust(2**31) }}",
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a wide number in braces": "{{ '{:{}}'.format(1, 10**9) }}",
    "replaced": "{% set a = 'a' * 1000000 %}{{ a.replace('a', a) }}",
    "joined": "{% set a = 'a' * 1000000 %}{{ ([a] * 100000) | join(a) }}",
    "indented": "{{ ('a\n' * 100000) | indent(100000) }}",
    "tabs": "{{ ('\t' * 100000).expandtabs(100000) }}",
    "summed lists": "{{ ([[1] * 1000] * 1000) | sum(start=[]) }}",
    "text in a loop": "{% for a in range(100000) %}" + "x" * 10_000 + "{% endfor %}",
    "words": "{{ ('a ' * 4000000).split() | length }}",
    "kept in itself": "{% set a = namespace() %}{% set a.x = [a, a] %}{{ a }}",
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_template_is_bounded_in_time_and_memory(tmp_path, name):
    tokenizer = Tokenizer(write_folder(tmp_path / "m", chat_template__jinja=GREEDY[name]), {})
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="refuses this conversation: CostError") as caught:
            tokenizer.render_chat(USER)
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_a_long_conversation_is_rendered(tmp_path):
    template = (
        "{% for m in messages %}{% if m.role == 'user' and m['content'] is string %}"
        "<{{ m.content | trim }}>{% else %}[{{ m.content.strip().split('?')[-1] }}]{% endif %}{% endfor %}"
    )
    turn = [{"role": "user", "content": " word" * 4000}, {"role": "assistant", "content": "a? b" * 4000}]
    messages = turn * 20
    folder = write_folder(tmp_path / "m", chat_template__jinja=template)
    ours, other = rendered_by_both(folder, messages)
    assert ours == other


@dataclass
class Part:
    """A part of a message as programs keep it."""

    text: str
    type: str = "text"


PARTS = {
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "a tuple": ({"role": "user", "content": ({"type": "text", "text": "a"},)},),
    "an image": [
        {"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "b"}]}
    ],
    "objects": [{"role": "user", "content": [Part("a"), Part("b")]}],
    "no parts": [{"role": "user", "content": []}],
    "mixed": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ],
}
OVER_PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
    "{% elif p.type == 'image' or 'image' in p %}<image>{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    "template", [OVER_PARTS, "{{ messages[0].content }}|{{ messages[0].content | length }}"]
)
def test_contents_that_are_lists_of_parts(tmp_path, name, template):
    folder = write_folder(tmp_path / "m", chat_template__jinja=template)
    ours, other = rendered_by_both(folder, PARTS[name])
    assert ours == other


def test_an_empty_conversation_is_refused(tmp_path):
    folder = write_folder(tmp_path / "m", chat_template__jinja="{% for m in messages %}a{% endfor %}b")
    with pytest.raises(ValueError, match="empty conversation"):
        theirs(folder).apply_chat_template([], tokenize=False)
    for messages in ([], ()):
        with pytest.raises(RequestError, match="the conversation is empty; give at least one message"):
            Tokenizer(folder, {}).render_chat(messages)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": [print]}, "tools have <built-in function print>; give a list of JSON schemas"),
        ({"tools": {"type": "function"}}, "tools have {'type': 'function'}; give a list"),
        ({"tools": "get_weather"}, "tools have 'get_weather'"),
        ({"documents": ["a text"]}, "documents have 'a text'; give a list of objects"),
    ],
)
def test_what_a_template_could_only_name_is_refused(tmp_path, options, said):
    tokenizer = Tokenizer(write_folder(tmp_path / "m", chat_template__jinja="{{ tools }}{{ documents }}"), {})
    with pytest.raises(RequestError, match=re.escape(said)):
        tokenizer.render_chat(USER, **options)


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "content"])
def test_an_answer_may_go_on_with_another_field(tmp_path, field):
    template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
        "</think>{% endif %}{{ m.content }}</s>{% endfor %}"
    )
    folder = write_folder(tmp_path / "m", chat_template__jinja=template)
    messages = [*USER, {"role": "assistant", "content": "so", field: "I think, "}]
    options = {"continue_final_message": field, "add_generation_prompt": False}
    ours, other = rendered_by_both(folder, messages, **options)
    assert ours == other
    assert ours.endswith("I think, ")


@pytest.mark.parametrize("mark", [{}, {"__type": "AddedToken"}])
@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
def test_a_name_of_the_models_own_means_a_token_that_is_said_to_be_one(tmp_path, file, mark):
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    named = {"image_token": {**mark, "content": "<unk>", **flags}}
    is_settings = file == "tokenizer_config"
    files = {} if is_settings else {f"{file}__json": named}
    config = SETTINGS | named if is_settings else SETTINGS
    folder = write_folder(tmp_path / "m", config=config, chat_template__jinja="a{{ image_token }}", **files)
    ours, other = rendered_by_both(folder, USER)
    assert ours == other


@pytest.mark.parametrize(("general", "expected"), [(None, {2, 40}), (1, {1, 2}), ([2], {2})])
def test_an_end_token_left_from_another_model_is_none_where_a_newer_file_says_so(tmp_path, general, expected):
    """As transformers, which asks config.json where generation_config.json says nothing; 40 is a letter."""
    folder = write_folder(tmp_path / "m", generation_config__json={"eos_token_id": general})
    assert Tokenizer(folder, {"eos_token_id": 40}).stop_ids == expected
    assert 0 in Tokenizer(folder, {"eos_token_id": [0, 40]}).stop_ids


def test_end_tokens_may_stand_with_the_settings_of_the_text(tmp_path):
    config = {"model_type": "qwen3_5_moe", "text_config": {"eos_token_id": [7, 9]}}
    assert Tokenizer(write_folder(tmp_path / "m"), config).stop_ids == {2, 7, 9}


@pytest.mark.parametrize("variation", ["qwen3", "qwen3.5-nested"])
def test_a_tokenizer_with_more_ids_than_embeddings_is_told(tmp_path, variation):
    """Their number may lie in a configuration within the configuration."""
    folder = write_checkpoint(tmp_path / "hf", variation)
    vocabulary = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary.add_tokens([f"<extra {i}>" for i in range(VOCAB_SIZE + 8 - vocabulary.get_vocab_size())])
    vocabulary.save(str(folder / "tokenizer.json"))
    report = convert_model(folder, tmp_path / "store", ConvertOptions())
    said = f"ids up to {VOCAB_SIZE + 7}, and the model embeddings of {VOCAB_SIZE}"
    assert any(said in note for note in report.notes)
