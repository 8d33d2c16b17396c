"""Clients of the server that is tried: ways of asking."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time

import httpx
from load_requests import request_of


async def wait_until_up(client: httpx.AsyncClient) -> None:
    for _ in range(600):
        try:
            if (await client.get("/health")).status_code == 200:
                return
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    raise RuntimeError("the server does not answer")


async def answer(client: httpx.AsyncClient, number: int, leaves_after: int | None = None):
    """Text, times of its pieces and number of heartbeats of an answer; None if its client left, and the
    error's code in place of the text if it failed.
    """
    began, times, text, beats = time.perf_counter(), [], "", 0
    async with client.stream("POST", "/v1/completions", json=request_of(number)) as response:
        if response.status_code != 200:
            await response.aread()
            return response.json()["error"]["code"], [], 0
        async for line in response.aiter_lines():
            beats += line == ": ping"
            if not line.startswith("data: {"):
                continue
            told = json.loads(line[6:])
            if "error" in told:
                return told["error"]["code"], times, beats
            (choice,) = told["choices"]
            if choice["text"]:
                times.append(time.perf_counter() - began)
                text += choice["text"]
            if leaves_after is not None and len(times) >= leaves_after:
                return None
    return text, times, beats


async def ask_all(client: httpx.AsyncClient, numbers, at_once: int, leaves_share: float = 0.0):
    draw, places = random.Random(0), asyncio.Semaphore(at_once)

    async def one(number: int, leaves_after: int | None):
        async with places:
            return number, await answer(client, number, leaves_after)

    leaves = [draw.randint(1, 8) if draw.random() < leaves_share else None for _ in numbers]
    found = await asyncio.gather(*(one(n, leave) for n, leave in zip(numbers, leaves, strict=True)))
    return [(number, got) for number, got in found if got is not None]


def client_of(url: str, at_once: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=at_once))


def never_reads(url: str) -> socket.socket:
    """A client that asks for much and takes nothing."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(request_of(0) | {"max_tokens": 900, "n": 16, "logprobs": 5}).encode()
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def response_of(kind: int) -> dict:
    """A request of a response, always the same for a kind."""
    asked = request_of(kind)
    most = {"max_output_tokens": asked["max_tokens"], "temperature": 0}
    return {"model": "model", "input": asked["prompt"], **most}


def output_text(response: dict) -> str:
    """The text of a response."""
    return "".join(part["text"] for item in response["output"] for part in item["content"])


async def read_in_parts(client: httpx.AsyncClient, kind: int, draw: random.Random) -> tuple[list[dict], int]:
    """All events of a response, by readers that leave after a few each, and how many there were."""
    events, num_readers = [], 0
    while not events or not has_ended(events):
        num_readers += 1
        if not events:
            request = client.stream(
                "POST", "/v1/responses", json=response_of(kind) | {"background": True, "stream": True}
            )
        else:
            place = events[-1]["sequence_number"]
            path = f"/v1/responses/{events[0]['response']['id']}?stream=true&starting_after={place}"
            request = client.stream("GET", path)
        most = draw.randint(1, 12)
        async with request as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    told = json.loads(line[6:])
                    if not events or told["sequence_number"] > events[-1]["sequence_number"]:
                        events.append(told)
                        most -= 1
                if most == 0:
                    break
    return events, num_readers


def has_ended(events: list[dict]) -> bool:
    """Whether the last event is a response's last."""
    return events[-1]["type"] in {"response.completed", "response.incomplete", "response.failed"}
