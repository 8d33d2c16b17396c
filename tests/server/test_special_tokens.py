"""Special tokens that the model writes without a meaning, and the token that ends an answer."""

from __future__ import annotations

import json
import shutil

import httpx
import pytest
from helpers.live_server import DEMO_STORE, live_server
from server.test_conversations import give_file
from test_thoughts import events_of

from edgemoe.server.dialects import DIALECTS
from edgemoe.server.events import Finish
from edgemoe.server.local_model import End, Token
from edgemoe.server.text_memory import TextMemory, Written
from edgemoe.server.writer import AnswerWriter

SAY = [{"role": "user", "content": "Tell a story."}]
NOISE, NOISE_ID, END_ID = "<|im_start|>", 1, 2  # of the demo's vocabulary
ASK = {"model": "demo", "max_tokens": 3, "temperature": 0, "logit_bias": {str(NOISE_ID): 100}}


def chat(http, **more):
    return http.post("/v1/chat/completions", json=ASK | {"messages": SAY} | more)


def test_noise_is_no_text_but_counts_and_has_its_logprobs(http):
    told = chat(http, logprobs=True).json()
    (choice,) = told["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == [NOISE] * 3
    assert told["usage"]["completion_tokens"] == 3


def test_streams_have_no_noise(http):
    lines = [line for line in chat(http, stream=True).text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line[6:])["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == ""


def test_completions_have_none(http):
    told = http.post("/v1/completions", json=ASK | {"prompt": "Once"}).json()
    assert (told["choices"][0]["text"], told["usage"]["completion_tokens"]) == ("", 3)


@pytest.mark.parametrize(
    ("path", "more"), [("/v1/chat/completions", {"messages": SAY}), ("/v1/completions", {"prompt": "Once"})]
)
def test_noise_is_text_for_those_who_ask(http, path, more):
    told = http.post(path, json=ASK | more | {"skip_special_tokens": False}).json()
    (choice,) = told["choices"]
    assert (choice.get("text") or choice["message"]["content"]) == NOISE * 3


def test_an_answer_may_end_before_a_special_token_that_the_client_names(http):
    told = chat(http, stop=[NOISE]).json()
    assert (told["choices"][0]["finish_reason"], told["usage"]["completion_tokens"]) == ("stop", 1)


def test_what_was_left_out_stays_in_what_the_model_wrote():
    """So the tokens of an answer that is sent back are known up to the first that its client did not see."""
    marks = {"<x>": 7}
    written = Written("<p>", [3])
    writer = AnswerWriter(DIALECTS["glm"].reader("", [], takes_calls=False), (), written)
    for token in (Token("a", 5), Token("", 7, left_out="<x>"), Token("b", 6)):
        writer.push(token)
    writer.finish(End("stop"))
    memory = TextMemory([*marks, "<p>", "<e>"])
    memory.keep(written)
    assert written.answer == "a<x>b"
    assert memory.encode("<p>ab<e>", lambda text: [ord(letter) for letter in text])[:2] != [3, 5]
    assert memory.encode("<p>a<x>b<e>", lambda text: [0])[:4] == [3, 5, 7, 6]


FAMILY_MARKS = {
    "qwen3-hermes": ["<think>", "</think>", "<tool_call>", "</tool_call>"],
    "qwen3-xml": ["<think>", "</think>", "<tool_call>", "</tool_call>"],
    "gemma4": ["<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>'],
    "gpt-oss": ["<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>"],
    "glm": ["<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>",
            "</arg_value>"],
    "deepseek": ["<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
                 "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "｜DSML｜"],
    "mistral": ["[THINK]", "[/THINK]", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
    "lfm2": ["<think>", "</think>", "<|tool_call_start|>", "<|tool_call_end|>"],
    "mistral-list": ["[THINK]", "[/THINK]", "[TOOL_CALLS]"],
}  # fmt: skip


@pytest.mark.parametrize("family", DIALECTS)
def test_a_familys_marks_are_read_and_the_rest_is_noise(family):
    written = DIALECTS[family].written
    assert [mark for mark in FAMILY_MARKS[family] if not any(mark in text for text in written)] == []
    noise = ["<|im_start|>", "<|endoftext|>", "<|fim_prefix|>", "<bos>", "<pad>", "<unk>", "[INST]"]
    assert [mark for mark in noise if any(mark in text for text in written)] == []


def test_entries_that_a_file_calls_unused_are_no_text(tmp_path):
    store = shutil.copytree(DEMO_STORE, tmp_path / "demo")
    give_file(store, "tokenizer_config.json", json.dumps({"unused_token_ids": [5, 300]}))
    asked = ASK | {"prompt": "Once", "logit_bias": {"300": 100}}
    with live_server(store) as live, httpx.Client(base_url=live.url) as client:
        told, shown = (
            client.post("/v1/completions", json=asked | {"skip_special_tokens": skips}).json()
            for skips in (True, False)
        )
    assert (told["choices"][0]["text"], told["usage"]["completion_tokens"]) == ("", 3)
    assert shown["choices"][0]["text"] != ""


def test_the_token_that_ends_an_answer_counts(http):
    told = chat(http, logit_bias={str(END_ID): 100}).json()
    assert (told["choices"][0]["message"]["content"], told["choices"][0]["finish_reason"]) == ("", "stop")
    assert told["usage"]["completion_tokens"] == told["timings"]["predicted_n"] == 1


@pytest.mark.parametrize(
    ("end", "stops", "count"),
    [
        (End("stop", by_token=True), (), 4),
        (End("length"), (), 3),
        (End("stop", by_token=True), ("c",), 3),  # the client's stop was there first
    ],
)
def test_tokens_are_counted_up_to_the_end(end, stops, count):
    writer = AnswerWriter(DIALECTS["glm"].reader("", [], takes_calls=False), stops, Written("", [1, 2]))
    timings = {"predicted_n": 9, "predicted_ms": 800.0, "predicted_per_second": 10.0}
    for number, letter in enumerate("abc"):
        writer.push(Token(letter, number))
    usage = writer.finish(End(end.reason, timings=timings, by_token=end.by_token))[-1].usage
    assert usage.num_completion == count
    assert usage.timings == timings | {"predicted_n": count, "predicted_ms": (count - 1) * 100.0}


def test_a_call_that_ends_an_answer_early_has_no_ending_token():
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call> and'
    finish = events_of(text, only_one_call=True)[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.num_completion == len(text) - len(" and")
