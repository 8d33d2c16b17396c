"""Responses that are kept: asked for again, gone on from, deleted, and made while nobody waits."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import openai
import pytest
from openai.types.responses import Response, ResponseItem
from pydantic import TypeAdapter
from server.test_lifecycle import eventually, running

from edgemoe.server.openai.background import Background
from edgemoe.server.openai.stored import ENTRY_BYTES, Kept, StoredResponses

SAY = {"role": "user", "content": "Tell me of the fox."}
KEY = {"authorization": "Bearer none"}  # of the official client here
ASK = {"model": "demo", "input": "Tell me of the fox.", "max_output_tokens": 4, "temperature": 0}


def strictly(kind, value):
    TypeAdapter(kind).validate_json(json.dumps(value), strict=True)


@pytest.mark.parametrize("streams", [False, True])
def test_a_conversation_goes_on_by_the_id_of_its_last_response(openai_client, streams):
    first = openai_client.responses.create(**ASK, instructions="Be brief.")
    asked = ASK | {"input": "And then?"}
    whole = openai_client.responses.create(
        **asked
        | {"input": [SAY, {"role": "assistant", "content": first.output_text},
                     {"role": "user", "content": "And then?"}]}
    )  # fmt: skip
    again = openai_client.responses.create(**asked, previous_response_id=first.id, stream=streams)
    if streams:
        again = [event.response for event in again if hasattr(event, "response")][-1]
    assert again.previous_response_id == first.id
    assert again.output_text == whole.output_text
    assert again.usage.input_tokens == whole.usage.input_tokens  # instructions are not carried over
    third = openai_client.responses.create(**asked, previous_response_id=again.id)
    assert third.usage.input_tokens > again.usage.input_tokens
    assert openai_client.responses.input_tokens.count(
        model="demo", input="And then?", previous_response_id=first.id
    ).input_tokens == again.usage.input_tokens  # fmt: skip


def test_a_kept_response_is_told_again_with_what_it_was_made_from(openai_client, http):
    first = openai_client.responses.create(**ASK)
    assert first.store
    assert openai_client.responses.retrieve(first.id) == first
    second = openai_client.responses.create(
        **ASK
        | {"input": [
            {"role": "user", "content": [{"type": "input_text", "text": "More"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "Sun"},
        ]},
        previous_response_id=first.id,
    )  # fmt: skip
    path = f"/v1/responses/{second.id}/input_items"
    items = http.get(path, params={"order": "asc"}, headers=KEY).json()["data"]
    for item in items:
        strictly(ResponseItem, item)
    assert [item["type"] for item in items] == ["message"] * 3 + ["function_call", "function_call_output"]
    assert items[0]["content"] == [{"type": "input_text", "text": ASK["input"]}]
    assert items[1]["content"][0]["text"] == first.output_text
    listed = list(openai_client.responses.input_items.list(second.id, limit=2))  # the client turns pages
    assert [item.id for item in listed] == [item["id"] for item in reversed(items)]
    assert http.get(path, params={"after": "nowhere"}, headers=KEY).status_code == 400


def test_a_deleted_response_is_not_there(openai_client):
    first = openai_client.responses.create(**ASK)
    second = openai_client.responses.create(**ASK, previous_response_id=first.id)
    openai_client.responses.delete(first.id)
    for ask in (openai_client.responses.retrieve, openai_client.responses.delete,
                openai_client.responses.cancel, openai_client.responses.input_items.list):  # fmt: skip
        with pytest.raises(openai.NotFoundError, match=f"Response with id '{first.id}' not found."):
            ask(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.responses.create(**ASK, previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    assert openai_client.responses.create(**ASK, previous_response_id=second.id).output_text


def test_nothing_is_kept_of_a_response_that_is_not_to_be(openai_client):
    done = openai_client.responses.create(**ASK, store=False)
    assert not done.store
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(done.id)


def test_no_key_finds_anothers_responses(openai_client):
    done = openai_client.responses.create(**ASK)
    other = openai_client.with_options(api_key="other")
    for ask in (other.responses.retrieve, other.responses.delete, other.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask(done.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        other.responses.create(**ASK, previous_response_id=done.id)
    with pytest.raises(openai.NotFoundError, match="Send the item itself"):
        other.responses.create(**ASK | {"input": [SAY, {"type": "item_reference", "id": done.output[0].id}]})
    assert openai_client.responses.retrieve(done.id).id == done.id


def test_items_can_be_named_by_their_ids(openai_client):
    first = openai_client.responses.create(**ASK)
    named = [SAY, {"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "More"}]
    whole = [*named[:1], first.output[0].model_dump(exclude_none=True), named[2]]
    asked = [openai_client.responses.create(**ASK | {"input": entries}) for entries in (named, whole)]
    assert asked[0].output_text == asked[1].output_text
    assert asked[0].usage.input_tokens == asked[1].usage.input_tokens


def test_a_response_is_made_while_nobody_waits(server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            made = await client.responses.create(**ASK, background=True)
            assert made.status == "queued"
            for _ in range(500):
                done = await client.responses.retrieve(made.id)
                if done.status not in {"queued", "in_progress"}:
                    break
                await asyncio.sleep(0.02)
            assert done.id == made.id
            assert done == await client.responses.cancel(made.id)  # it is over: nothing changes
            return done

    done = asyncio.run(ask())
    assert done.status == "incomplete"
    assert done.usage.output_tokens == 4


def test_one_that_is_just_being_put_by_is_not_lost_to_a_cancel():
    async def run():
        response, kept = {"id": "resp_1", "output": [], "status": ""}, []
        is_kept = asyncio.Event()

        async def told():
            yield [(0, None)]

        async def keep(owner, made):
            is_kept.set()
            await asyncio.sleep(0.01)
            kept.append((owner, made.response["status"]))

        def encode(choice, event):
            response["status"] = "completed"
            return ()

        background = Background(keep, 1000)
        encoder = SimpleNamespace(response=response, encode=encode, number=0)
        background.start("me", Kept(response, []), encoder, told())
        await is_kept.wait()
        await background.cancel("me", "resp_1")
        return kept, background.find("me", "resp_1")

    assert asyncio.run(run()) == ([("me", "completed")], None)


def test_one_in_the_background_can_be_cancelled(server, openai_client, http):
    queue = server.app.answers.queue
    with running(server.url):
        made = openai_client.responses.create(**ASK, background=True)
        eventually(lambda: queue.num_waiting == 1, "it does not wait")
        assert openai_client.responses.retrieve(made.id).status == "queued"
        assert openai_client.responses.input_items.list(made.id).data[0].content[0].text == ASK["input"]
        assert openai_client.responses.cancel(made.id).status == "cancelled"
        assert queue.num_waiting == 0
    strictly(Response, http.get(f"/v1/responses/{made.id}", headers=KEY).json())
    plain = openai_client.responses.create(**ASK)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        openai_client.responses.cancel(plain.id)


def test_what_nobody_has_used_for_longest_is_forgotten():
    def packed(number, size=0):
        text = "".join(map(chr, range(32, 32 + size)))
        response = {"id": f"resp_{number}", "output": [{"id": f"msg_{number}"}], "text": text}
        return stored.pack(Kept(response, []))

    stored = StoredResponses(3, 100 * ENTRY_BYTES)
    for number in range(3):
        stored.keep("me", packed(number))
    assert stored.find("me", "resp_0")
    stored.keep("me", packed(3))
    there = [number for number in range(4) if stored.find_item("me", f"msg_{number}")]
    assert there == [0, 2, 3]
    assert stored.find("you", "resp_0") is None
    stored = StoredResponses(3, 2 * ENTRY_BYTES)
    assert packed(0, 5000) is None
    for number in range(2):
        stored.keep("me", packed(number))
    assert [bool(stored.find("me", f"resp_{number}")) for number in range(2)] == [False, True]
    assert not stored.forget("me", "resp_0")
    assert stored.forget("me", "resp_1")
