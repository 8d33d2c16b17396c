"""Streams of responses that are made in the background or have ended: resumed, shared, left, too old."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from server.test_constraints import WEATHER
from server.test_lifecycle import eventually, running
from server.test_response_tools import PATCH, REGEX
from server.test_shapes import events_of, strictly

from edgemoe.server.failures import Failure
from edgemoe.server.openai.event_log import ENTRY_BYTES, EventLog, read_log

ASK = {"model": "demo", "input": "Tell me of the fox.", "max_output_tokens": 12, "temperature": 0}
FUNCTION = {"type": "function", "name": "get_weather", "description": "", "parameters": WEATHER}
SCHEMA = {"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["yes", "no"]}}}


def texts(events):
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def numbers(events):
    return [event.sequence_number for event in events]


def streamed(http, path, **query):
    answer = http.get(path, params={"stream": "true", **query}, headers={"authorization": "Bearer none"})
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text)
    for event in events:
        strictly(ResponseStreamEvent, event)
    return events


def test_a_stream_that_broke_off_goes_on_where_it_was(openai_client):
    seen = []
    with openai_client.responses.create(**ASK, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    first = seen[0].response
    assert [event.type for event in seen[:3]] == [
        "response.created", "response.queued", "response.in_progress"
    ]  # fmt: skip
    assert (first.status, first.background, first.output) == ("queued", True, [])
    seen += openai_client.responses.retrieve(first.id, stream=True, starting_after=seen[-1].sequence_number)
    assert numbers(seen) == list(range(len(seen)))
    assert seen[-1].type == "response.incomplete"
    assert seen[-1].response.output_text == texts(seen) != ""
    whole = openai_client.responses.retrieve(first.id)
    assert whole == seen[-1].response
    again = list(openai_client.responses.retrieve(first.id, stream=True))
    assert again == seen  # also now that it has ended
    assert list(openai_client.responses.retrieve(first.id, stream=True, starting_after=len(seen) - 1)) == []


def test_the_clients_own_helper_follows_a_response_to_its_end(openai_client):
    ask = ASK | {"max_output_tokens": 40}
    with openai_client.responses.stream(**ask, text=SCHEMA, background=True) as stream:
        made = next(iter(stream)).response
    with openai_client.responses.stream(response_id=made.id, starting_after=3) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.id == made.id
    assert final.output_text in {'"yes"', '"no"'}
    assert min(numbers(events)) == 4


def test_several_read_at_once_and_one_that_leaves_stops_nothing(server):
    async def read(client, response_id):
        stream = await client.responses.retrieve(response_id, stream=True)
        return [event async for event in stream]

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            made = await client.responses.create(**ASK, background=True)
            leaver = await client.responses.retrieve(made.id, stream=True)
            await anext(leaver)
            await leaver.close()
            return await asyncio.gather(*[read(client, made.id) for _ in range(3)])

    first, *others = asyncio.run(ask())
    assert others == [first, first]
    assert numbers(first) == list(range(len(first)))
    assert first[-1].response.usage.output_tokens == 12


def test_readers_are_told_of_a_cancelled_response(server, openai_client, http):
    with running(server.url):
        stream = openai_client.responses.create(**ASK, background=True, stream=True)
        made = next(stream).response
        eventually(lambda: server.app.answers.queue.num_waiting == 1, "it does not wait")
        openai_client.responses.cancel(made.id)
        events = list(stream)
    assert (events[-1].type, events[-1].response.status) == ("response.incomplete", "cancelled")
    assert streamed(http, f"/v1/responses/{made.id}")[-1]["response"]["status"] == "cancelled"


@pytest.mark.parametrize(
    "asked",
    [
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"tools": [FUNCTION], "tool_choice": "required", "max_output_tokens": 80},
        {"tools": [PATCH | {"format": REGEX}], "tool_choice": "required", "max_output_tokens": 80},
    ],
    ids=["text", "function", "custom"],
)
def test_one_that_was_made_while_its_client_waited_can_be_streamed_too(openai_client, http, asked):
    done = openai_client.responses.create(**ASK | asked)
    path = f"/v1/responses/{done.id}"
    events = streamed(http, path)
    assert events[-1]["response"] == http.get(path, headers={"authorization": "Bearer none"}).json()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert streamed(http, path, starting_after=2) == events[3:]
    assert done.output[0].id in {event.get("item_id") for event in events}


def test_places_that_are_none_are_refused(openai_client, http):
    done = openai_client.responses.create(**ASK)
    path = f"/v1/responses/{done.id}"
    for value in ("-1", "x", "1.5", "9" * 30):
        answer = http.get(path, params={"stream": "true", "starting_after": value},
                          headers={"authorization": "Bearer none"})  # fmt: skip
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "starting_after"
    for response_id in ("resp_0", done.id):
        with pytest.raises(openai.NotFoundError):
            openai_client.with_options(api_key="other").responses.retrieve(response_id, stream=True)


def test_events_take_bounded_room_and_the_oldest_go_first():
    log = EventLog(10 * (ENTRY_BYTES + 6))
    log.add(f"line {n}" for n in range(10))
    assert log.whole() == [f"line {n}" for n in range(10)]
    log.add(["line a"])
    assert log.since(6) == ["line 6", "line 7", "line 8", "line 9", "line a"]
    assert log.whole() == []  # the beginning is missing
    with pytest.raises(Failure, match="can no longer be streamed from event 5"):
        log.since(5)


def test_a_reader_hears_of_silence_and_misses_nothing():
    response = {"status": "queued", "output": []}

    async def run():
        log, heard = EventLog(1000), []
        log.add([("response.created", "queued")])
        async for text in read_log(log, response, -1, 0.001):
            heard += events_of(text)
            if len(heard) == 2:
                response["status"] = "in_progress"
                log.add(['data: {"sequence_number": 1}\n\n'])
            elif len(heard) == 4:
                response["status"] = "completed"
                log.close()
        return heard

    heard = asyncio.run(run())
    kinds = [(event.get("type"), event["sequence_number"]) for event in heard]
    assert kinds == [
        ("response.created", 0),
        ("response.queued", 0),
        (None, 1),
        ("response.in_progress", 1),
        ("response.completed", 2),
    ]


def test_a_reader_that_is_too_slow_is_told_so():
    async def run():
        log = EventLog(4 * ENTRY_BYTES)
        log.add(["", ""])
        lines = read_log(log, {"status": "in_progress"}, -1, 1)
        await anext(lines)
        log.add([""] * 6)
        return [events_of(text) async for text in lines]

    ((error,),) = asyncio.run(run())
    strictly(ResponseStreamEvent, error)
    assert (error["type"], error["code"]) == ("error", "events_not_kept")
