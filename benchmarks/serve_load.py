"""Loads a server as its users would: many requests, some of whose clients leave; then what the server costs.

    python benchmarks/serve_load.py [STORE] [--memory 256MiB] [--requests 200] [--at-once 16]

1. Requests of mixed lengths, several at a time, some broken off at random. Every answer that comes to its end
   must equal the one that the request gets alone. Prints times to the first token and between tokens.
2. Tokens per second, and processor time per token, through the API, through the server, and with a schema,
   in turns. Processor time has engine, server and client in it: the server adds less than the difference.

Prints a card for people and one JSON line for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import threading
import time
from contextlib import contextmanager
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import httpx
import uvicorn

import edgemoe.server
from edgemoe.engine.machine import peak_resident_bytes, resident_bytes
from edgemoe.server import Limits, ServerOptions

WORDS = [
    "once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "a",
    "little",
    "fox",
    "who",
    "lived",
    "in",
    "the",
    "old",
    "forest",
    "near",
    "a",
    "river",
]
SCHEMA = {"type": "object", "properties": {"words": {"type": "array", "items": {"type": "string"}}},
          "required": ["words"]}  # fmt: skip
LEAVES_SHARE = 0.2
ROUNDS = 5


@contextmanager
def served(store: Path, memory: str):
    """The URL and the application of a server in a thread."""
    options = ServerOptions(limits=Limits(num_waiting=1024))
    app = edgemoe.server.create_app(store, memory, aliases=("model",), options=options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    server.should_exit = True
    thread.join()


def request_of(number: int) -> dict:
    """A request of some length, always the same for a number."""
    draw = random.Random(number)
    prompt = " ".join(draw.choices(WORDS, k=draw.choice([3, 30, 150])))
    return {"model": "model", "prompt": prompt, "max_tokens": draw.choice([4, 16, 48]), "temperature": 0.8,
            "seed": number, "stream": True}  # fmt: skip


async def answer(client: httpx.AsyncClient, number: int, leaves_after: int | None = None):
    """The text of an answer and the times of its tokens; None if its client left."""
    began, times, text = time.perf_counter(), [], ""
    async with client.stream("POST", "/v1/completions", json=request_of(number)) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            (choice,) = json.loads(line[6:])["choices"]
            if choice["text"]:
                times.append(time.perf_counter() - began)
                text += choice["text"]
            if leaves_after is not None and len(times) >= leaves_after:
                return None
    return text, times


async def load(url: str, num_requests: int, at_once: int):
    """All answers: alone first, then at once with clients that leave."""
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        alone = [(await answer(client, number))[0] for number in range(num_requests)]
        draw, places = random.Random(0), asyncio.Semaphore(at_once)

        async def one(number: int, leaves_after: int | None):
            async with places:
                return await answer(client, number, leaves_after)

        leaves = [draw.randint(1, 8) if draw.random() < LEAVES_SHARE else None for _ in range(num_requests)]
        together = await asyncio.gather(*(one(n, leave) for n, leave in enumerate(leaves)))
    ended = [(n, got) for n, got in enumerate(together) if got is not None]
    wrong = [n for n, (text, _) in ended if text != alone[n]]
    return ended, wrong


def cost_of_server(url: str, num_tokens: int, schema: dict | None = None) -> tuple[float, float]:
    """Tokens per second, and processor seconds per token, from the request to the last that a client gets."""
    form = (
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        if schema
        else {"type": "text"}
    )
    body = {"model": "model", "messages": [{"role": "user", "content": "Tell a long story."}], "stream": True,
            "max_tokens": num_tokens, "temperature": 1.5, "seed": 1, "response_format": form}  # fmt: skip
    times = []
    with (
        httpx.Client(timeout=600) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body) as got,
    ):
        times += [now() for line in got.iter_lines() if '"content":"' in line]
    return cost(times)


def now() -> tuple[float, float]:
    """The clock's time, and the processor's."""
    return time.perf_counter(), time.process_time()


def cost(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Tokens per second and processor seconds per token of tokens that came at these times."""
    (first_s, first_cpu_s), (last_s, last_cpu_s) = times[0], times[-1]
    return (len(times) - 1) / (last_s - first_s), (last_cpu_s - first_cpu_s) / (len(times) - 1)


def cost_of_api(model, num_tokens: int) -> tuple[float, float]:
    """The same from the model itself."""
    messages = [{"role": "user", "content": "Tell a long story."}]
    times = [now()]
    times += [now() for _ in model.stream_chat(messages, max_tokens=num_tokens, temperature=1.5, seed=1)]
    return cost(times)


def share(values: list[float], part: float) -> float:
    """The value that this part of all lies below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "store", nargs="?", type=Path, default=Path(str(files("edgemoe").joinpath("demo_store")))
    )
    parser.add_argument("--memory", default="256MiB")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="of the answers that are timed")
    arguments = parser.parse_args()
    with served(arguments.store, arguments.memory) as (url, app):
        before = resident_bytes()
        began = time.perf_counter()
        ended, wrong = asyncio.run(load(url, arguments.requests, arguments.at_once))
        elapsed_s = time.perf_counter() - began
        grown = resident_bytes() - before
        model = app.shelf.resident.model
        costs: dict[str, list[tuple[float, float]]] = {"api": [], "server": [], "schema": []}
        for _ in range(ROUNDS):
            costs["api"].append(cost_of_api(model, arguments.tokens))
            costs["server"].append(cost_of_server(url, arguments.tokens))
            costs["schema"].append(cost_of_server(url, arguments.tokens, SCHEMA))
        queue = app.answers.queue
        left = queue.num_running + queue.num_waiting
    first = [times[0] for _, (_, times) in ended if times]
    between = [b - a for _, (_, times) in ended for a, b in pairwise(times)]
    speed = {name: statistics.median(rate for rate, _ in values) for name, values in costs.items()}
    cpu_ms = {name: 1000 * statistics.median(s for _, s in values) for name, values in costs.items()}
    record = {
        "requests": arguments.requests,
        "at_once": arguments.at_once,
        "ended": len(ended),
        "wrong": len(wrong),
        "left_over": left,
        "elapsed_s": round(elapsed_s, 2),
        "first_token_s": [round(share(first, p), 4) for p in (0.5, 0.99)],
        "between_tokens_s": [round(share(between, p), 5) for p in (0.5, 0.99)],
        "grown_bytes": grown,
        "peak_bytes": peak_resident_bytes(),
        "tokens_per_s": {name: round(value, 1) for name, value in speed.items()},
        "cpu_ms_per_token": {name: round(value, 3) for name, value in cpu_ms.items()},
    }
    print(
        f"{len(ended)} of {arguments.requests} answers ended, {len(wrong)} wrong, {left} left over\n"
        f"first token {record['first_token_s']} s, between tokens {record['between_tokens_s']} s (50, 99 %)\n"
        f"memory grew by {grown / 2**20:.1f} MiB, peak {record['peak_bytes'] / 2**20:.1f} MiB\n"
        f"tokens/s {record['tokens_per_s']}\n"
        f"processor's ms per token {record['cpu_ms_per_token']}"
    )
    print(json.dumps(record))


if __name__ == "__main__":
    main()
