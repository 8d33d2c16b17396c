"""Conversations that go on after a restart, with what was read before."""

from __future__ import annotations

import anthropic
import httpx
from helpers.live_server import live_server

from edgemoe.server.options import ServerOptions

SYSTEM = "You tell stories of foxes, bears and owls who live in an old forest near a river. " * 4


def ask(client, number, messages):
    """A turn as Claude Code sends it: the system prompt begins with a line that no two turns share."""
    billing = f"x-anthropic-billing-header: cc_version=2.1; cch={number:05x};"
    return client.messages.create(
        model="demo",
        max_tokens=20,
        extra_body={"temperature": 0},
        system=[{"type": "text", "text": billing}, {"type": "text", "text": SYSTEM}],
        messages=messages,
    )


def metric(url, name):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def test_a_conversation_goes_on_after_a_restart(tmp_path):
    options = ServerOptions(park=tmp_path / "texts")
    messages = [{"role": "user", "content": "Tell me of the fox."}]
    with (
        live_server(aliases=("demo",), options=options) as live,
        anthropic.Anthropic(base_url=live.url, api_key="x", max_retries=0) as client,
    ):
        first = ask(client, 1, messages)
        assert first.usage.cache_read_input_tokens == 0
    num_read = first.usage.input_tokens
    messages += [
        {"role": "assistant", "content": first.content[0].text},
        {"role": "user", "content": "And of the owl?"},
    ]
    with (
        live_server(aliases=("demo",), options=options) as live,
        anthropic.Anthropic(base_url=live.url, api_key="x", max_retries=0) as client,
    ):
        second = ask(client, 2, messages)
        saved = metric(live.url, "edgemoe_parked_tokens_saved_total")
        assert second.usage.cache_read_input_tokens == saved >= 0.95 * num_read
        assert metric(live.url, "edgemoe_parked_hits_total") == metric(live.url, "edgemoe_parked_texts") == 1
        assert metric(live.url, "edgemoe_parked_bytes") > 1000 * num_read
    with (
        live_server(aliases=("demo",)) as live,
        anthropic.Anthropic(base_url=live.url, api_key="x", max_retries=0) as client,
    ):
        anew = ask(client, 3, messages)
    assert anew.content[0].text == second.content[0].text
    assert (tmp_path / "texts").stat().st_mode & 0o077 == 0


CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
TOOL = {"name": "get_weather", "input_schema": CITY | {"additionalProperties": False}}


def call(client, messages, **options):
    """A turn of an agent."""
    return client.messages.create(
        model="demo", max_tokens=99, extra_body={"temperature": 0}, tools=[TOOL], messages=messages, **options
    )


def test_a_call_is_known_after_a_restart_too(tmp_path):
    """A call that had to be made is not cut into tokens as its text would be."""
    options = ServerOptions(park=tmp_path / "texts")
    messages = [{"role": "user", "content": "The weather in Paris?"}]
    with (
        live_server(aliases=("demo",), options=options) as live,
        anthropic.Anthropic(base_url=live.url, api_key="x", max_retries=0) as client,
    ):
        first = call(client, messages, tool_choice={"type": "any"})
    (use,) = first.content
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}
    messages += [
        {"role": "assistant", "content": [use.model_dump(exclude_none=True)]},
        {"role": "user", "content": [result]},
    ]
    with (
        live_server(aliases=("demo",), options=options) as live,
        anthropic.Anthropic(base_url=live.url, api_key="x", max_retries=0) as client,
    ):
        second = call(client, messages)
    known = first.usage.input_tokens + first.usage.output_tokens
    assert second.usage.cache_read_input_tokens >= known - 1
