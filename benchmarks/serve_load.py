"""Loads a server as its users would: many requests, some of whose clients leave.

    python benchmarks/serve_load.py [STORE] [--memory 256MiB] [--requests 200] [--at-once 16]

Requests of mixed lengths, several at a time, some broken off at random. Every answer that comes to its end
must equal the one that the request gets alone. Prints times to the first token and between tokens, and how
memory grew: a card for people and one JSON line for programs. ``serve_cost.py`` measures what a token costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import httpx
from load_requests import LEAVES_SHARE, request_of, share
from served import served

from edgemoe.engine.machine import peak_resident_bytes, resident_bytes
from edgemoe.server import Limits, ServerOptions


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
    arguments = parser.parse_args()
    options = ServerOptions(limits=Limits(num_waiting=1024))
    with served(arguments.store, arguments.memory, options=options) as (url, app):
        before = resident_bytes()
        began = time.perf_counter()
        ended, wrong = asyncio.run(load(url, arguments.requests, arguments.at_once))
        elapsed_s = time.perf_counter() - began
        grown = resident_bytes() - before
        queue = app.answers.queue
        left = queue.num_running + queue.num_waiting
    first = [times[0] for _, (_, times) in ended if times]
    between = [b - a for _, (_, times) in ended for a, b in pairwise(times)]
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
    }
    print(
        f"{len(ended)} of {arguments.requests} answers ended, {len(wrong)} wrong, {left} left over\n"
        f"first token {record['first_token_s']} s, between tokens {record['between_tokens_s']} s (50, 99 %)\n"
        f"memory grew by {grown / 2**20:.1f} MiB, peak {record['peak_bytes'] / 2**20:.1f} MiB"
    )
    print(json.dumps(record))


if __name__ == "__main__":
    main()
