"""Whole sessions as coding agents hold them: several turns with tools, images and errors in their results.

The shapes are those of Claude Code 2.1 and Codex 0.171; calls are constrained, so that the little model makes
valid ones. Every event has its client's type, and what the server said is sent back as the client does it.
"""

from __future__ import annotations

import json

import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.responses import ResponseStreamEvent
from server.test_parts import BLOCK_IMAGE, ITEM_IMAGE
from server.test_shapes import events_of, strictly

from edgemoe.server.fields import parse_body

PATH = "/home/me/fox.png"
READ = {"type": "object", "properties": {"path": {"enum": [PATH]}}, "required": ["path"]}
FIND = {"type": "object", "properties": {"query": {"enum": ["select:Fetch"]}}, "required": ["query"]}
FETCH = {"type": "object", "properties": {"url": {"enum": ["http://a"]}}, "required": ["url"]}
DONE = {"type": "json_schema", "name": "x", "schema": {"enum": ["done"]}}

BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332.34c; cch=00000;"}
CLAUDE_SYSTEM = [
    {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
]
CLAUDE_TOOLS = [
    {"name": "Read", "description": "Reads.", "input_schema": READ},
    {"name": "Find", "description": "Finds tools.", "input_schema": FIND},
    {"name": "Placeholder", "input_schema": {"type": "object", "properties": {}}, "defer_loading": True},
]
CODEX_TOOLS = [
    {"type": "function", "name": "exec", "strict": False, "parameters": FETCH},
    {"type": "function", "name": "view_image", "strict": False, "parameters": READ},
    {
        "type": "namespace",
        "name": "agents",
        "description": "Others.",
        "tools": [{"type": "function", "name": "wait", "strict": False, "parameters": FIND}],
    },
    {
        "type": "custom",
        "name": "apply_patch",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
    },
    {"type": "web_search", "external_web_access": True},
]


class Claude:
    """A session on ``/v1/messages``."""

    def __init__(self, http):
        self.http = http
        self.messages = []
        self.tools = CLAUDE_TOOLS
        self.cached = []

    def ask(self, *content, **more):
        """The blocks of the answer, as the client puts them together from the stream."""
        self.messages.append({"role": "user", "content": list(content)})
        body = {
            "model": "demo",
            "max_tokens": 120,
            "stream": True,
            "system": [BILLING | {"text": f"{BILLING['text']} turn={len(self.messages)}"}, *CLAUDE_SYSTEM],
            "messages": self.messages,
            "tools": self.tools,
            "thinking": {"type": "adaptive", "display": "updates"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "metadata": {"user_id": "{}"},
            "temperature": 0,
        }  # fmt: skip
        answer = self.http.post("/v1/messages?beta=true", json=body | more)
        assert answer.status_code == 200, answer.text
        blocks, text = [], ""
        for event in events_of(answer.text):
            if event["type"] != "ping":
                strictly(RawMessageStreamEvent, event)
            if event["type"] == "content_block_start":
                blocks.append(event["content_block"])
                text = ""
            elif event["type"] == "content_block_delta":
                text += event["delta"].get("text") or event["delta"].get("partial_json") or ""
            elif event["type"] == "content_block_stop":
                is_call = blocks[-1]["type"] == "tool_use"
                blocks[-1] |= {"input": json.loads(text)} if is_call else {"text": text}
            elif event["type"] == "message_delta":
                self.cached.append(event["usage"]["cache_read_input_tokens"])
        self.messages.append({"role": "assistant", "content": blocks})
        return blocks

    def call(self, name, *content):
        """The call that the answer is constrained to be."""
        (block,) = self.ask(*content, tool_choice={"type": "tool", "name": name})
        assert (block["type"], block["name"]) == ("tool_use", name)
        return block


def result_of(block, *content, **more):
    return {"type": "tool_result", "tool_use_id": block["id"], "content": list(content), **more}


def text(words):
    return {"type": "text", "text": words}


def test_a_session_of_claude_code(http):
    session = Claude(http)
    call = session.call("Find", text("Look at fox.png."))
    session.messages[1:1] = [{"role": "system", "content": "# Environment\n - Shell: bash"}]
    session.tools = [
        *session.tools,
        {"name": "Fetch", "description": "Fetches.", "input_schema": FETCH, "defer_loading": True},
    ]
    call = session.call("Fetch", result_of(call, {"type": "tool_reference", "tool_name": "Fetch"}))
    assert call["input"] == {"url": "http://a"}
    call = session.call("Read", result_of(call, text("not found"), is_error=True))
    assert call["input"] == {"path": PATH}
    call = session.call("Read", result_of(call, BLOCK_IMAGE), text("<system-reminder>Hm.</system-reminder>"))
    schema = {"format": {"type": "json_schema", "schema": DONE["schema"]}}
    (said,) = session.ask(result_of(call, BLOCK_IMAGE), output_config=schema | {"effort": "high"})
    assert said == text('"done"')
    assert session.ask(text("And now?"), max_tokens=4)
    assert session.cached[2:] == sorted(session.cached[2:])  # each turn reads only what is new
    assert session.cached[2] > 0


class Codex:
    """A session on ``/v1/responses``, which keeps its items itself."""

    def __init__(self, http):
        self.http = http
        self.items = []

    def ask(self, *items, **more):
        """The items of the answer, as the client takes them from ``output_item.done``."""
        self.items += items
        body = {
            "model": "demo",
            "instructions": "You are a coding agent.",
            "input": self.items,
            "tools": CODEX_TOOLS,
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "reasoning": {"summary": "auto"},
            "store": False,
            "stream": True,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "k",
            "client_metadata": {"x-codex-turn-metadata": "{}"},
            "max_output_tokens": 120,
            "temperature": 0,
        }
        answer = self.http.post("/v1/responses", json=body | more)
        if answer.status_code != 200:
            return answer
        events = events_of(answer.text)
        for event in events:
            strictly(ResponseStreamEvent, event)
        assert events[-1]["type"] in {"response.completed", "response.incomplete"}
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        self.items += done
        return done

    def call(self, name, *items, full_name=None):
        (item,) = self.ask(*items, tool_choice={"type": "function", "name": full_name or name})
        assert (item["type"], item["name"]) == ("function_call", name)
        return item


def output_of(item, output):
    return {"type": "function_call_output", "call_id": item["call_id"], "output": output}


def said_by(role, *parts):
    return {"type": "message", "role": role, "content": list(parts)}


def words(value):
    return {"type": "input_text", "text": value}


def test_a_session_of_codex(http):
    session = Codex(http)
    opening = [said_by("developer", words("Be kind.")), said_by("user", words("<environment_context/>"))]
    call = session.call("exec", *opening, said_by("user", words("Look at fox.png.")))
    call = session.call("view_image", output_of(call, "Exit code: 1\nOutput:\nno such file"))
    call = session.call("wait", output_of(call, [ITEM_IMAGE]), full_name="agents__wait")
    assert call["namespace"] == "agents"
    patch = {"type": "custom_tool_call", "call_id": "p", "name": "apply_patch", "input": "*** Begin Patch"}
    patched = {"type": "custom_tool_call_output", "call_id": "p", "output": "Done!"}
    (said,) = session.ask(
        output_of(call, [words("ready")]), patch, patched, text={"format": DONE}, max_output_tokens=20
    )
    assert said["content"][0]["text"] == '"done"'
    refused = session.ask(said_by("user", words("See:"), ITEM_IMAGE))
    assert refused.status_code == 400
    assert "'input_image' is not supported" in refused.json()["error"]["message"]
    (said,) = session.ask(said_by("user", words("Never mind.")), max_output_tokens=4)  # that image stays
    assert said["type"] == "message"


@pytest.mark.parametrize("arguments", ['{"path": ', "[1]", "", "null", '"x"', '{"path": "\\ud83d"}'])
def test_a_damaged_call_among_good_ones_does_not_end_a_conversation(http, arguments):
    calls = [
        {"id": str(n), "type": "function", "function": {"name": "look", "arguments": given}}
        for n, given in enumerate(['{"path": "a"}', arguments])
    ]
    results = [{"role": "tool", "tool_call_id": str(n), "content": "x"} for n in range(2)]
    body = {
        "model": "demo",
        "max_tokens": 2,
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "Hm.", "tool_calls": calls},
            *results,
        ],
    }
    assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_half_a_character_does_not_end_a_conversation(http):
    """Clients that cut a tool's output by UTF-16 send such halves for good."""
    content = "A fox \\ud83d and a whole one \\ud83e\\udd8a."
    sent = '{"model": "demo", "max_tokens": 2, "messages": [{"role": "user", "content": "CONTENT"}]}'
    sent = sent.replace("CONTENT", content)
    assert http.post("/v1/chat/completions", content=sent).status_code == 200
    told = parse_body(sent.encode())["messages"][0]["content"]
    assert told == "A fox \ufffd and a whole one \U0001f98a."
    deep = parse_body(b'{"a\\udc00": [{"b": "\\uDBFF"}, 1, null]}')
    assert deep == {"a\ufffd": [{"b": "\ufffd"}, 1, None]}
