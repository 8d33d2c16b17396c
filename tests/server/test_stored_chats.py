"""Chat completions that are kept, and conversations that are compacted; by the official client."""

from __future__ import annotations

import json

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import TypeAdapter

SAY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Tell me of the fox."}]},
]
ASK = {"model": "demo", "messages": SAY, "max_tokens": 4, "temperature": 0}
TURNS = [
    {"role": "user", "content": "Tell me of the fox."},
    {"role": "assistant", "content": "He ran."},
    {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "A tree."},
    {"role": "user", "content": "Where to?"},
]


@pytest.fixture
def client(openai_client):
    """With a key of its own, under which nothing is kept yet."""
    own = openai_client.with_options(api_key="kept chats")
    yield own
    for completion in own.chat.completions.list():
        own.chat.completions.delete(completion.id)


def test_a_kept_completion_is_told_again(client):
    made = client.chat.completions.create(**ASK, store=True, metadata={"topic": "fox"})
    again = client.chat.completions.retrieve(made.id)
    assert again.choices == made.choices
    assert again.usage == made.usage
    assert again.metadata == {"topic": "fox"}
    assert again.temperature == 0
    messages = client.chat.completions.messages.list(made.id).data
    assert [message.role for message in messages] == ["system", "user"]
    assert messages[0].content == "Be brief."
    assert messages[1].content is None
    assert messages[1].content_parts[0].text == "Tell me of the fox."
    assert [m.id for m in client.chat.completions.messages.list(made.id, order="desc", limit=1)] == [
        messages[1].id,
        messages[0].id,
    ]


def test_a_streamed_completion_is_kept_as_it_was_told(client):
    told = list(client.chat.completions.create(**ASK, n=2, seed=1, store=True, stream=True))
    kept = client.chat.completions.retrieve(told[0].id)
    for choice in kept.choices:
        pieces = [c.delta.content or "" for chunk in told for c in chunk.choices if c.index == choice.index]
        assert choice.message.content == "".join(pieces)
        assert choice.finish_reason == "length"
    assert kept.created == told[0].created


def test_completions_are_listed_changed_and_deleted(client):
    made = [
        client.chat.completions.create(**ASK, store=True, metadata={"n": str(number)}) for number in range(3)
    ]
    ids = [completion.id for completion in made]
    assert [c.id for c in client.chat.completions.list(limit=1)] == ids  # the client turns pages
    assert [c.id for c in client.chat.completions.list(order="desc")] == ids[::-1]
    assert [c.id for c in client.chat.completions.list(metadata={"n": "1"})] == ids[1:2]
    assert not client.chat.completions.list(model="other").data
    changed = client.chat.completions.update(ids[1], metadata={"n": "9"})
    assert changed.metadata == {"n": "9"}
    assert [c.id for c in client.chat.completions.list(metadata={"n": "9"})] == ids[1:2]
    assert client.chat.completions.delete(ids[1]).deleted
    assert [c.id for c in client.chat.completions.list()] == [ids[0], ids[2]]
    with pytest.raises(openai.BadRequestError, match="at most 16"):
        client.chat.completions.update(ids[0], metadata={str(n): "" for n in range(17)})


def test_a_page_of_large_completions_ends_where_memory_would(server, client):
    """Compressed they are small, and a page of a hundred might be hundreds of times as large."""
    stored = server.app._responses._stored
    ids = [client.chat.completions.create(**ASK, store=True, metadata={"n": str(n)}).id for n in range(3)]
    most, stored.most_bytes = stored.most_bytes, 1
    try:
        page = client.chat.completions.list()
        assert [c.id for c in page.data] == ids[:1]
        assert page.has_more
        assert [c.id for c in page] == ids  # the client goes on behind it
    finally:
        stored.most_bytes = most
    client.chat.completions.update(ids[0], metadata={"n": "9"})
    assert [c.id for c in client.chat.completions.list()] == ids


def test_what_is_not_kept_or_is_anothers_is_not_there(client, openai_client):
    ask = client.chat.completions
    plain, kept = ask.create(**ASK), ask.create(**ASK, store=True)
    for completion_id, who in ((plain.id, client), (kept.id, openai_client)):
        theirs = who.chat.completions
        for do in (theirs.retrieve, theirs.delete, theirs.messages.list):
            with pytest.raises(openai.NotFoundError, match=f"id '{completion_id}' not found"):
                do(completion_id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)
    assert [c.id for c in ask.list()] == [kept.id]


def test_kept_completions_have_their_types(client, http):
    client.chat.completions.create(**ASK, store=True)
    headers = {"authorization": f"Bearer {client.api_key}"}
    (body,) = http.get("/v1/chat/completions", headers=headers).json()["data"]
    TypeAdapter(ChatCompletion).validate_json(json.dumps(body), strict=True)


def test_a_conversation_is_compacted_and_goes_on(openai_client):
    short = openai_client.responses.compact(model="demo", input=TURNS, instructions="Be brief.")
    assert short.object == "response.compaction"
    assert [item.type for item in short.output] == ["message", "message", "compaction"]
    assert [item.content[0].text for item in short.output[:2]] == ["Tell me of the fox.", "Where to?"]
    assert short.usage.output_tokens > 0
    items = [item.model_dump(exclude_none=True, warnings=False) for item in short.output]
    ask = {"model": "demo", "max_output_tokens": 4, "temperature": 0}
    went_on = openai_client.responses.create(**ask, input=[*items, {"role": "user", "content": "So?"}])
    assert went_on.output_text
    bare = openai_client.responses.create(**ask, input=[*items[:2], {"role": "user", "content": "So?"}])
    assert went_on.usage.input_tokens > bare.usage.input_tokens
    third = openai_client.responses.compact(model="demo", previous_response_id=went_on.id)
    assert [item.type for item in third.output] == ["message"] * 3 + ["compaction"]


@pytest.mark.parametrize("content", ["", "gAAAAABo", "edgemoe.!", "x edgemoe.YQ=="])
def test_what_another_server_compacted_cannot_be_read(openai_client, content):
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.responses.create(
            model="demo", input=[{"type": "compaction", "encrypted_content": content}, TURNS[0]]
        )
    assert caught.value.code == "invalid_encrypted_content"
    assert caught.value.param == "input[0].encrypted_content"
