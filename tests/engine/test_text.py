"""Whole characters only, stop texts over several tokens, chat templates."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemoe.errors import RequestError, StoreError
from edgemoe.text import StreamDecoder, Tokenizer
from edgemoe.text.stops import StopScanner


@pytest.fixture(scope="module")
def tokenizer(tiny_store):
    return Tokenizer(tiny_store, {"eos_token_id": [1, 7]})


@pytest.mark.parametrize("text", ["Once upon a time", "naïve café", "漢字と仮名", "🙂🙃 👩‍🚀", "a\n\n b"])
def test_text_arrives_in_whole_characters_and_in_full(tokenizer, text):
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + decoder.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


HELLO = [{"role": "user", "content": "Hi"}]


def test_an_unfinished_character_is_shown_at_the_end(tokenizer):
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(token) for token in tokenizer.encode("🙂")[:-1]] == [""] * 3
    assert decoder.flush() == "\ufffd"


def scan(pieces, stops):
    scanner, shown = StopScanner(stops), []
    for piece in pieces:
        shown.append(scanner.push(piece))
        if scanner.is_stopped:
            return "".join(shown), True
    return "".join(shown) + scanner.flush(), False


def test_a_stop_text_over_several_pieces_is_never_shown():
    assert scan(["one EN", "D two"], ["END"]) == ("one ", True)
    assert scan(["one EN", "EMY"], ["END"]) == ("one ENEMY", False)
    assert scan(["aab", "c"], ["bc", "abc"]) == ("a", True)
    assert scan(["text"], [""]) == ("text", False)


@given(
    st.lists(st.text("abc", max_size=4), max_size=8),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=3),
)
def test_stopping_equals_cutting_the_whole_text(pieces, stops):
    whole = "".join(pieces)
    shown, is_stopped = scan(pieces, stops)
    if is_stopped:
        assert any(whole[len(shown) :].startswith(stop) for stop in stops)
    else:
        assert shown == whole
    assert not any(stop in shown for stop in stops)


def test_chat_is_rendered_by_the_template(tokenizer):
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.render_chat(messages) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode_chat(messages)
    assert ids[0] == tokenizer.encode("<|im_start|>")[0]


def test_stop_ids_come_from_configuration_tokenizer_and_template(tokenizer):
    """7 is a word's, and generation_config.json names others: it was left in config.json."""
    assert tokenizer.stop_ids == {0, 1}
    assert tokenizer.turn_end_ids() == {2}  # <|im_end|>


def make_folder(tmp_path, tiny_store, template):
    (tmp_path / "tokenizer.json").write_bytes((tiny_store / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template, "bos_token": {"content": "B"}})
    )
    return Tokenizer(tmp_path, {})


def test_templates_inside_the_tokenizer_configuration(tmp_path, tiny_store):
    tokenizer = make_folder(tmp_path, tiny_store, "{{ bos_token }}{{ messages[0].content | tojson }}")
    assert tokenizer.render_chat([{"role": "user", "content": "é"}]) == 'B"é"'
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert make_folder(tmp_path, tiny_store, named).render_chat(HELLO) == "d"


def test_refusals_of_a_template_are_one_line(tmp_path, tiny_store):
    tokenizer = make_folder(tmp_path, tiny_store, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RequestError, match="refuses this conversation: roles must alternate"):
        tokenizer.render_chat(HELLO)
    with pytest.raises(RequestError, match="refuses this conversation"):
        make_folder(tmp_path, tiny_store, "{{ ''.__class__.__mro__ }}").render_chat(HELLO)
    with pytest.raises(RequestError, match="has no chat template"):
        make_folder(tmp_path, tiny_store, None).render_chat(HELLO)


def test_a_damaged_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StoreError, match="not a tokenizer"):
        Tokenizer(tmp_path, {})
