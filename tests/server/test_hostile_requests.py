"""Whatever a client sends is answered or refused in its protocol's shape: never a 500."""

from __future__ import annotations

import copy
import json
import random
import time

import pytest

WEIRD = [None, True, False, 0, -1, 1.5, 1e308, 10**30, "", "x", "\x00", "\ud800", "é" * 50,
         [], [[]], {}, {"a": {}}, [None], [1, "a"], {"type": "text"}, {"type": "image"}, "required", "none",
         {"type": "function"}]  # fmt: skip
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SEEDS = {
    "/v1/chat/completions": {
        "model": "demo",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "n": 1, "stop": ["x"], "seed": 1, "logprobs": True,
        "top_logprobs": 2, "logit_bias": {"5": 1}, "tools": [TOOL], "tool_choice": "auto",
        "response_format": {"type": "text"}, "stream_options": {"include_usage": True}, "stream": True,
        "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low",
    },
    "/v1/completions": {"model": "demo", "prompt": ["a", "b"], "max_tokens": 2, "logprobs": 1, "echo": True,
                        "n": 1, "stop": "x", "best_of": 1},
    "/v1/messages": {
        "model": "demo", "max_tokens": 2, "system": [{"type": "text", "text": "s"}], "stop_sequences": ["x"],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"},
        "thinking": {"type": "disabled"}, "metadata": {"user_id": "u"},
    },
    "/v1/responses": {
        "model": "demo", "instructions": "s", "max_output_tokens": 2,
        "tools": [{"type": "function", "name": "f"},
                  {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]}],
        "store": True, "background": False, "stream": False,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "r"},
        ],
        "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "tool_choice": "auto",
    },
}  # fmt: skip
NUM_BODIES = 60


def spots(value, path=()):
    """Every place in a body."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from spots(value[key], (*path, key))


def mutated(body, draw):
    """A body with one to three places changed, removed or doubled."""
    body = copy.deepcopy(body)
    for _ in range(draw.randint(1, 3)):
        path = draw.choice([spot for spot in spots(body) if spot])
        inner = body
        for key in path[:-1]:
            inner = inner[key]
        if isinstance(inner, dict) and draw.random() < 0.3:
            del inner[path[-1]]
        else:
            inner[path[-1]] = copy.deepcopy(draw.choice(WEIRD))
    return body


@pytest.mark.parametrize("path", SEEDS)
def test_mutated_bodies(http, path):
    draw, seen = random.Random(path), set()
    for _ in range(NUM_BODIES):
        body = mutated(SEEDS[path], draw)
        content = json.dumps(body)  # half a character stays an escape, which JSON allows
        answer = http.post(path, content=content)
        assert answer.status_code in {200, 400, 404}, (answer.status_code, answer.text, body)
        seen.add(answer.status_code)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]
            assert answer.headers["x-should-retry"] == "false"
        assert "Traceback" not in answer.text
        assert "defect" not in answer.text, (answer.text, body)
    assert {200, 400} <= seen


@pytest.mark.parametrize("path", SEEDS)
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":NaN}', b"[" * 100_000,
     b'{"model":' + b"[" * 200 + b"]" * 200 + b"}"],
    ids=["empty", "half", "list", "null", "no-utf8", "nan", "deep", "nested"],
)  # fmt: skip
def test_bodies_that_are_no_json_object(http, path, content):
    answer = http.post(path, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_paths_reach_no_files(http):
    for path in (
        "/page/../app.py",
        "/page/%2e%2e%2fapp.py",
        "/page/..%5capp.py",
        "/page//etc/passwd",
        "/page/x",
    ):
        assert http.get(path).status_code == 404


def test_a_path_cannot_write_lines_of_its_own_into_the_log(http, caplog):
    lines = []
    with caplog.at_level("INFO", "edgemoe.server"):
        http.get("/v1/x%0a2026-11-29 GET /made/up%1b[31m" + "y" * 10_000)
        while not lines:  # the server writes it once the answer has gone
            lines = [record.getMessage() for record in caplog.records if "/made/up" in record.getMessage()]
            time.sleep(0.01)
    (line,) = lines
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 400
