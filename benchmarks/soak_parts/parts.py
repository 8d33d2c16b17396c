"""What is tried: load, stalls, damage, readers that come back, and SIGTERM; see soak.py."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import httpx
from load_requests import LEAVES_SHARE, request_of, share

from soak_parts.clients import (
    answer,
    ask_all,
    client_of,
    never_reads,
    output_text,
    read_in_parts,
    response_of,
    wait_until_up,
)

NUM_KINDS = 60  # different requests; each is asked many times
WARM_SHARE = 0.25  # of the requests, before memory is first measured


async def load(url: str, process, num_requests: int, at_once: int) -> dict:
    """See 1 above."""
    async with client_of(url, at_once) as client:
        await wait_until_up(client)
        alone = dict(await ask_all(client, range(NUM_KINDS), 1))
        stuck = never_reads(url)
        numbers = [random.Random(n).randrange(NUM_KINDS) for n in range(num_requests)]
        warm = int(num_requests * WARM_SHARE)
        ended = await ask_all(client, numbers[:warm], at_once, LEAVES_SHARE)
        before = resident(process)
        began = time.perf_counter()
        ended += await ask_all(client, numbers[warm:], at_once, LEAVES_SHARE)
        elapsed_s = time.perf_counter() - began
        after = resident(process)
        stuck.close()
        metrics = (await client.get("/metrics")).text
    first = [times[0] for _, (_, times, _) in ended if times]
    between = [b - a for _, (_, times, _) in ended for a, b in pairwise(times)]
    return {
        "ended": len(ended),
        "wrong": sum(text != alone[number][0] for number, (text, _, _) in ended),
        "requests_per_s": round((num_requests - warm) / elapsed_s, 1),
        "first_token_s": [round(share(first, p), 4) for p in (0.5, 0.99)],
        "between_tokens_s": [round(share(between, p), 5) for p in (0.5, 0.99)],
        "resident_bytes": [before, after],
        "left_over": sum(
            float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("vllm:num_requests_")
        ),
        "alone": {number: text for number, (text, _, _) in alone.items()},
    }


async def stall(url: str, alone: dict[int, str], at_once: int) -> dict:
    """See 2 above."""
    async with client_of(url, at_once) as client:
        await wait_until_up(client)
        ended = await ask_all(client, range(NUM_KINDS), at_once)
    return {
        "wrong": sum(text != alone[number] for number, (text, _, _) in ended),
        "heartbeats": sum(beats for _, (_, _, beats) in ended),
        "longest_silence_s": round(max(b - a for _, (_, t, _) in ended for a, b in pairwise(t)), 2),
    }


async def damage(url: str, store: Path, alone: dict[int, str]) -> dict:
    """See 3 above."""
    file = store / "experts-00000.safetensors"
    sound = file.read_bytes()
    async with client_of(url, 16) as client:
        await wait_until_up(client)
        quarter = len(sound) // 4
        with file.open("r+b") as damaged:
            damaged.seek(quarter)
            damaged.write(b"\x5a" * (2 * quarter))
        broken = await ask_all(client, range(20), 8)
        health = (await client.get("/health")).status_code
        with file.open("r+b") as mended:
            mended.write(sound)
        again = await ask_all(client, range(20), 8)
    return {
        "refused_by_name": sum(text == "engine_error" for _, (text, _, _) in broken),
        "neither_right_nor_refused": sum(
            text not in ("engine_error", alone[number]) for number, (text, _, _) in broken
        ),
        "health": health,
        "wrong_after_mending": sum(text != alone[number] for number, (text, _, _) in again),
    }


async def resumed(url: str, num_responses: int, at_once: int) -> dict:
    """See 4 above."""
    kinds = range(NUM_KINDS // 4)
    async with client_of(url, at_once) as client:
        await wait_until_up(client)
        whole = {kind: output_text((await client.post("/v1/responses", json=response_of(kind))).json())
                 for kind in kinds}  # fmt: skip
        places = asyncio.Semaphore(at_once)

        async def one(number: int) -> tuple[bool, bool, int]:
            kind, draw = number % len(kinds), random.Random(number)
            async with places:
                events, num_readers = await read_in_parts(client, kind, draw)
            numbers = [event["sequence_number"] for event in events]
            text = output_text(events[-1]["response"])
            return numbers == list(range(len(events))), text == whole[kind], num_readers

        found = await asyncio.gather(*map(one, range(num_responses)))
    return {
        "responses": len(found),
        "readers": sum(num_readers for _, _, num_readers in found),
        "out_of_order": sum(not is_whole for is_whole, _, _ in found),
        "wrong": sum(not is_right for _, is_right, _ in found),
    }


async def num_waiting(client: httpx.AsyncClient) -> float:
    """Requests in the queue."""
    metrics = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in metrics if line.startswith("vllm:num_requests_waiting"))


async def stop(url: str, process) -> dict:
    """See 5 above."""
    async with client_of(url, 32) as client:
        await wait_until_up(client)
        long = request_of(1) | {"max_tokens": 900, "seed": 5}  # it runs until the others wait
        started = asyncio.Event()

        async def running():
            lines = []
            async with client.stream("POST", "/v1/completions", json=long) as response:
                async for line in response.aiter_lines():
                    lines.append(line)
                    if len(lines) > 8:
                        started.set()
            return [line for line in lines if line]

        first = asyncio.create_task(running())
        await started.wait()
        waiting = [asyncio.create_task(answer(client, n)) for n in range(4)]
        while await num_waiting(client) < len(waiting):
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        lines = await first
        told = [code for code, _, _ in await asyncio.gather(*waiting)]
    code = await asyncio.to_thread(process.wait, 60)
    return {
        "running_ended": lines[-1] == "data: [DONE]" and '"error"' not in lines[-2],
        "waiting_refused": told.count("stopping"),
        "exit_code": code,
    }


def resident(process: subprocess.Popen) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
