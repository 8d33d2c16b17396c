"""What clients meet at the edges: odd bodies, browsers, cut answers, answers that go on, counts."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import httpx
import pytest
from helpers.live_server import DEMO_STORE

from edgemoe.server.dialects import DIALECTS
from edgemoe.server.events import TokenChance
from edgemoe.server.failures import Failure, unsupported
from edgemoe.server.fields import parse_body
from edgemoe.server.guard import plain_path, preflight
from edgemoe.server.model_list import list_models
from edgemoe.server.openai.chat_answer import logprobs_body
from edgemoe.server.openai.completions_answer import logprobs_body as completion_logprobs
from edgemoe.text.tokenizer import Tokenizer

SAY = [{"role": "user", "content": "Tell a story."}]
ASK = {"model": "demo", "temperature": 0, "max_tokens": 6}


def test_a_compressed_body_is_refused_as_such(http):
    body = gzip.compress(json.dumps(ASK | {"messages": SAY}).encode())
    answer = http.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "'gzip'; send it plain" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a": ' + b"9" * 2000 + b"}", "a number has 2000 digits"),
        (b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "nested more than 64 deep"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b'{"a": "\xff"}', "not JSON"),
    ],
)
def test_bodies_that_are_no_json_say_why(body, says):
    with pytest.raises(Failure, match=says):
        parse_body(body)


def test_a_refused_value_does_not_stand_in_the_fields_name():
    failure = unsupported("messages[0].content[0].type 'image_url'", "text only")
    assert failure.param == "messages[0].content[0].type"


def test_browsers_may_send_what_official_clients_send():
    asked = {
        "access-control-request-headers": "authorization,x-stainless-os,anthropic-beta",
        "access-control-request-private-network": "true",
    }
    told = preflight(asked)
    assert told["access-control-allow-headers"] == asked["access-control-request-headers"]
    assert told["access-control-allow-private-network"] == "true"
    odd = preflight({"access-control-request-headers": "a\r\nset-cookie: b"})
    assert odd["access-control-allow-headers"] == "Authorization"


def test_models_come_in_pages(tmp_path):
    shelf = SimpleNamespace(stores={name: tmp_path / name for name in "abc"}, resident=None)

    def page(**query):
        found = list_models(shelf, query)
        return "".join(entry["id"] for entry in found["data"]), found["has_more"]

    assert page() == ("abc", False)
    assert page(limit="2") == ("ab", True)
    assert page(limit="2", after_id="b") == ("c", False)
    assert page(limit="1", before_id="c") == ("b", True)
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"after_id": "z"}):
        with pytest.raises(Failure):
            page(**wrong)


def test_slashes_too_many_do_no_harm(http):
    assert http.get("/v1/models/").json() == http.get("/v1/models").json()
    assert http.get("/v1/models/demo/").json()["id"] == "demo"
    for path in ("//v1/messages/count_tokens", "/v1//messages/count_tokens/?beta=true"):
        body = {"model": "demo", "messages": SAY}
        answer = http.post(httpx.URL(str(http.base_url).rstrip("/") + path), json=body)
        assert answer.json()["input_tokens"] > 0
    assert [plain_path(path) for path in ("/", "//", "/page/", "//a///b//")] == ["/", "/", "/page", "/a/b"]
    assert [plain_path(f"http://127.0.0.1:8080{path}") for path in ("", "/v1//models")] == ["/", "/v1/models"]
    assert [plain_path(path, "/ai") for path in ("/ai/", "/ai/v1/models/")] == ["/ai/", "/ai/v1/models"]


def test_what_is_not_there_says_so_in_the_protocols_words(http):
    wrong = http.post("/v1/v1/messages", json={})
    assert wrong.status_code == 404
    assert "nothing at POST /v1/v1/messages; OpenAI's clients are given" in wrong.json()["error"]["message"]
    batches = http.get("/v1/messages/batches")
    assert (batches.status_code, batches.json()["error"]["type"]) == (404, "not_found_error")
    put = http.put("/v1/chat/completions", json={})
    assert put.status_code == 405
    assert set(put.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert http.head("/v1/chat/completions").status_code == 200


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/completions"])
def test_a_prompt_can_be_read_ahead(http, path):
    asked = {"messages": [{"role": "user", "content": "Read this ahead."}], "prompt": "Read this one ahead"}
    body = {"model": "demo", "max_tokens": 0} | asked
    first, second = (http.post(path, json=body | extra).json() for extra in ({}, {"max_tokens": 2}))
    if path == "/v1/messages":
        assert (first["stop_reason"], first["usage"]["output_tokens"]) == ("max_tokens", 0)
        assert second["usage"]["cache_read_input_tokens"] > 0
        assert second["usage"]["input_tokens"] == 1
    else:
        assert (first["choices"][0]["text"], first["usage"]["completion_tokens"]) == ("", 0)
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_a_function_without_parameters_is_called_with_none(openai_client):
    answer = openai_client.chat.completions.create(
        **ASK | {"max_tokens": 40},
        messages=SAY,
        tools=[{"type": "function", "function": {"name": "look"}}],
        tool_choice="required",
    )
    assert answer.choices[0].message.tool_calls[0].function.arguments == "{}"


@pytest.mark.parametrize(("takes_calls", "shown"), [(True, "Well, "), (False, "Well, <tool_c")])
def test_half_a_call_at_the_limit_is_no_text(takes_calls, shown):
    tools = [{"type": "function", "function": {"name": "f"}}]
    reader = DIALECTS["qwen3-hermes"].reader("", tools, takes_calls=takes_calls)
    pieces = [*reader.push("Well, <tool_c"), *reader.finish(is_cut=True)]
    assert "".join(piece.text for piece in pieces).rstrip() == shown.rstrip()


def test_pieces_of_a_character_are_told_by_their_bytes():
    half = TokenChance(b"\xc3", -2.0, ((b"\xc4", -0.5), (b"\xc3", -2.0)))
    chances = [TokenChance("é".encode(), -1.0), half]
    told = logprobs_body(chances)["content"]
    assert [(entry["token"], entry["bytes"]) for entry in told] == [("é", [0xC3, 0xA9]), ("\ufffd", [0xC3])]
    older = completion_logprobs([*chances, TokenChance(b"\xa9", -1.0), TokenChance(b"!", -1.0)])
    assert older["tokens"] == ["é", "bytes:\\xc3", "bytes:\\xa9", "!"]
    assert older["top_logprobs"][1] == {"bytes:\\xc4": -0.5, "bytes:\\xc3": -2.0}
    assert older["text_offset"] == [0, 1, 2, 2]  # characters that have begun before


def test_a_prompt_of_ids_is_echoed_in_whole_characters(http):
    """The demo writes them in pieces."""
    ids = Tokenizer(DEMO_STORE, {}).encode("漢字")
    body = ASK | {"prompt": ids, "echo": True, "logprobs": 0, "max_tokens": 0}
    (choice,) = http.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"] == "漢字"
    assert len(choice["logprobs"]["tokens"]) == len(ids) > 2


@pytest.mark.parametrize("streams", [False, True])
def test_every_prompt_counts_once(http, streams):
    """Two prompts of two and three tokens, two answers each."""
    body = ASK | {"prompt": [[5, 6], [7, 8, 9]], "n": 2, "max_tokens": 2, "logit_bias": {"0": -100}}
    if not streams:
        usage = http.post("/v1/completions", json=body).json()["usage"]
    else:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        lines = http.post("/v1/completions", json=body).text.splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        usage = chunks[-1]["usage"]
        assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert usage["prompt_tokens"] == 5
    assert usage["total_tokens"] == 5 + usage["completion_tokens"]


def test_what_is_written_behind_a_stop_does_not_count(http):
    counts = {
        http.post(
            "/v1/chat/completions", json=ASK | {"messages": SAY, "stop": "upon", "max_tokens": 60}
        ).json()["usage"]["completion_tokens"]
        for _ in range(4)
    }
    assert counts == {2}


BEGUN = [*SAY, {"role": "assistant", "content": "Once upon"}]


@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("/v1/messages", {"messages": BEGUN}),
        ("/v1/chat/completions", {"messages": BEGUN, "continue_final_message": True}),
        ("/v1/chat/completions", {"messages": [*SAY, BEGUN[-1] | {"prefix": True}]}),
    ],
)
def test_an_answer_goes_on_with_what_the_client_began(http, path, extra):
    whole = http.post("/v1/chat/completions", json=ASK | {"messages": SAY}).json()
    text = whole["choices"][0]["message"]["content"]
    assert text.startswith("Once upon")
    answer = http.post(path, json=ASK | extra | {"max_tokens": 4}).json()
    went_on = (
        answer["content"][0]["text"] if "content" in answer else answer["choices"][0]["message"]["content"]
    )
    assert "Once upon" + went_on == text


def test_a_message_of_responses_that_was_cut_says_so(http):
    body = {"model": "demo", "input": SAY, "max_output_tokens": 2, "truncation": "auto"}
    answer = http.post("/v1/responses", json=body).json()
    assert answer["output"][0]["status"] == answer["status"] == "incomplete"
    assert answer["truncation"] == "auto"


def test_a_call_that_must_be_made_has_the_named_parameters_only(openai_client):
    """The demo's model would go on making up others for ever."""
    parameters = {"type": "object", "properties": {"age": {"enum": [1, 2]}}, "required": ["age"]}
    answer = openai_client.chat.completions.create(
        **ASK | {"max_tokens": 80},
        messages=SAY,
        tools=[{"type": "function", "function": {"name": "animal", "parameters": parameters}}],
        tool_choice="required",
    )
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments).keys() == {"age"}
