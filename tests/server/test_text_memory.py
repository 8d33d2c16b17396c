"""Tokens of what was written before, found by its text."""

from __future__ import annotations

import json

import pytest

from edgemoe.server import text_memory
from edgemoe.server.messages import system_text
from edgemoe.server.text_memory import TextMemory, Written


def encode(text):
    """One token for a character; special marks are one as well."""
    return [900 if part == "|" else ord(part) for part in text]


def written(prompt="u|", tokens=(("ab", 500), ("", 501), ("cd", 502), ("|", 900), ("e", 503))):
    made = Written(prompt, encode(prompt))
    for text, token_id in tokens:
        made.push(text, token_id)
    return made


def test_a_text_that_goes_on_has_the_tokens_that_were_drawn():
    memory = TextMemory(["|"])
    memory.keep(written())
    assert memory.encode("u|abcd|e|more", encode) == [117, 900, 500, 501, 502, 900, 503, *encode("|more")]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("u|ab|x", [117, 900, 500]),  # the client stopped reading there
        ("u|abcd|x", [117, 900, 500, 501, 502]),
        ("u||x", [117, 900]),
        ("u|abc|x", None),  # within what one token wrote
        ("u|abcdx|", None),  # no special token at the end of what is common
        ("v|abcd|x", None),
    ],
)
def test_what_is_known_ends_where_a_special_token_begins(text, ids):
    memory = TextMemory(["|"])
    memory.keep(written())
    known = ids or []
    rest = text if ids is None else text[text.rindex("|", 0, len(text) - 1) :]
    assert memory.encode(text, encode) == [*known, *encode(rest)]


def test_text_that_came_late_belongs_to_the_last_token():
    late = written(tokens=[("", 500), ("", 501), ("ab", None)])
    assert list(late.ids_up_to(4)) == [117, 900, 500, 501]
    assert late.ids_up_to(3) is None
    assert late.answer == "ab"


def test_the_longest_text_counts_and_others_only_if_none_helps():
    memory = TextMemory(["|"])
    memory.keep(written(tokens=[("ab", 500)]))
    longer = written("u|ab|", [("cd", 600)])
    assert memory.encode("u|ab|cd|x", encode, lambda: [longer])[:3] == [117, 900, 500]
    memory.keep(longer)
    assert 600 in memory.encode("u|ab|cd|x", encode)
    assert TextMemory([]).encode("a|b", encode, lambda: [longer]) == encode("a|b")


def test_the_memory_of_texts_is_bounded(monkeypatch):
    monkeypatch.setattr(text_memory, "MAX_CHARACTERS", 100)
    memory = TextMemory(["|"])
    for number in range(10):
        memory.keep(written(f"{number}|", [("x" * 30, 500)]))
    assert 500 not in memory.encode(f"0|{'x' * 30}|", encode)
    assert 500 in memory.encode(f"9|{'x' * 30}|", encode)


def test_a_line_of_the_client_s_own_leaves_the_rest_of_a_system_prompt():
    line = "x-anthropic-billing-header: cc_version=2.1.37; cch=fa690;"
    blocks = [{"type": "text", "text": text} for text in (line, "You are kind.", "Be brief.")]
    assert system_text(blocks, "system") == "You are kind.\nBe brief."
    assert system_text(f"{line}\nYou are kind.", "system") == "You are kind."


def turns(client, temperature):
    """A call that had to be made, and the client's answer to it with other JSON than came."""
    city = {"type": "string", "maxLength": 12}
    tool = {
        "type": "object",
        "properties": {"city": city},
        "required": ["city"],
        "additionalProperties": False,
    }
    ask = {
        "model": "demo",
        "temperature": temperature,
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": tool}}],
    }
    messages = [{"role": "user", "content": f"The weather in Paris? {temperature}"}]
    first = client.chat.completions.create(
        messages=messages, tool_choice="required", max_tokens=80, seed=1, **ask
    )
    call = first.choices[0].message.tool_calls[0].model_dump()
    call["function"]["arguments"] = json.dumps(json.loads(call["function"]["arguments"]), indent=3)
    messages += [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "Sunny."},
    ]
    return first, client.chat.completions.create(messages=messages, max_tokens=2, **ask)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_nothing_that_was_written_is_read_again(openai_client, temperature):
    first, second = turns(openai_client, temperature)
    assert first.choices[0].finish_reason == "tool_calls"
    known = first.usage.total_tokens - 1  # the token that ended the answer was drawn only
    assert second.usage.prompt_tokens_details.cached_tokens == known
