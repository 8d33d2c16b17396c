"""Does a server hold for long, and when things go wrong?

    python benchmarks/soak.py [STORE] [--memory 100MiB] [--requests 1000] [--at-once 16]

Servers of their own processes, under a memory cgroup of the budget's size where one can be made:

1. load: requests of mixed lengths, some of whose clients leave, and one client that never reads. Every answer
   that comes to its end must equal the one that the request gets alone; memory must not grow.
2. stalls: storage stands still for seconds, again and again. Answers are the same; heartbeats come.
3. damage: half of the experts are overwritten while the server runs, then mended. Requests fail by name, and
   succeed again.
4. resumed: responses are made in the background while their readers leave after a few events and come back.
   They hear every event once, and the same answer as one that waited.
5. SIGTERM: what runs comes to its end, what waits or comes is refused with 503.

Prints a card for people and one JSON line for programs. Exit code 1 if any of it is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import httpx
from memory_cgroup import CgroupUnavailable, memory_group

from edgemoe.units import format_size, parse_size

TEXT = "once upon a time there was a little fox who lived in the old forest near a river"
WORDS = TEXT.split()
NUM_KINDS = 60  # different requests; each is asked many times
LEAVES_SHARE = 0.2
WARM_SHARE = 0.25  # of the requests, before memory is first measured
STALL_S, STALL_EVERY, MOST_STALLS = 3.0, 100, 10  # storage stands still for so long after so many reads
ENV = os.environ | {"PYTHONUNBUFFERED": "1"}


def request_of(number: int) -> dict:
    """A request of some length, always the same for a number."""
    draw = random.Random(number)
    prompt = " ".join(draw.choices(WORDS, k=draw.choice([3, 30, 150])))
    return {"model": "model", "prompt": prompt, "max_tokens": draw.choice([4, 16, 48]), "temperature": 0.8,
            "seed": number, "stream": True}  # fmt: skip


@contextmanager
def served(store: Path, memory: str, group=None, stalls: bool = False):
    """A server's URL and process."""
    command = [sys.executable, __file__, str(store), "--memory", memory, "--serve"]
    command += ["--stalls"] if stalls else []
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed below
    process = subprocess.Popen(
        group.inside(command) if group else command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENV
    )
    try:
        line = process.stdout.readline()
        if not line:
            log.seek(0)
            raise RuntimeError(f"no server: {log.read()[-2000:]}")
        yield line.strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        log.close()


def serve(store: Path, memory: str, stalls: bool) -> None:
    """The child: a server that says where it is, on storage that may stand still."""
    from edgemoe.server import Limits, ServerOptions
    from edgemoe.server import serve as run
    from edgemoe.store.store import Store

    if stalls:
        opened = Store.open_expert_reader
        Store.open_expert_reader = lambda *args, **options: StallingReader(opened(*args, **options))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    options = ServerOptions(port=port, heartbeat_s=1.0, limits=Limits(num_waiting=64, send_s=5.0))
    run(store, memory, aliases=("model",), options=options)


class StallingReader:
    """A reader that stands still now and then; see ``ExpertReader``."""

    def __init__(self, reader) -> None:
        self._reader = reader
        self._num_waits = 0

    def _stall(self) -> None:
        self._num_waits += 1
        if self._num_waits % STALL_EVERY == 0 and self._num_waits <= MOST_STALLS * STALL_EVERY:
            time.sleep(STALL_S)

    def wait(self, ticket: int) -> None:
        """See ExpertReader."""
        self._stall()
        self._reader.wait(ticket)

    def wait_some(self, tickets, block: bool = True):
        """See ExpertReader."""
        if block:
            self._stall()
        return self._reader.wait_some(tickets, block)

    def __getattr__(self, name: str):
        return getattr(self._reader, name)


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


def resident(process: subprocess.Popen) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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


def share(values: list[float], part: float) -> float:
    """The value that this part of all lies below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def soak(store: Path, memory: str, num_requests: int, at_once: int) -> dict:
    """All parts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        copy = shutil.copytree(store, folder / "store")
        try:
            group = stack.enter_context(memory_group(parse_size(memory)))
        except CgroupUnavailable as reason:
            group = None
            print(f"without a cgroup: {reason}", file=sys.stderr)
        print("many requests at once", file=sys.stderr)
        with served(copy, memory, group) as (url, process):
            found = {"load": asyncio.run(load(url, process, num_requests, at_once))}
        alone = found["load"].pop("alone")
        print("storage that stalls", file=sys.stderr)
        with served(copy, memory, group, stalls=True) as (url, _):
            found["stalls"] = asyncio.run(stall(url, alone, at_once))
        print("damaged experts", file=sys.stderr)
        with served(copy, memory, group) as (url, _):
            found["damage"] = asyncio.run(damage(url, copy, alone))
        print("readers that leave and come back", file=sys.stderr)
        with served(copy, memory, group) as (url, _):
            found["resumed"] = asyncio.run(resumed(url, num_requests // 5, at_once))
        print("SIGTERM", file=sys.stderr)
        with served(copy, memory, group) as (url, process):
            found["sigterm"] = asyncio.run(stop(url, process))
        if group is not None:
            found["cgroup"] = {"peak_bytes": group.peak_bytes(), "oom_kills": group.num_oom_kills()}
    return found


def faults_of(found: dict, memory: str) -> list[str]:
    """What is not as promised."""
    load, growth = found["load"], found["load"]["resident_bytes"]
    checks = {
        "answers differ from those alone": load["wrong"],
        "requests are left over": load["left_over"],
        "memory grows": growth[1] - growth[0] > 8 << 20,
        "stalls change answers": found["stalls"]["wrong"],
        "stalls are silent": not found["stalls"]["heartbeats"],
        "damage goes unnoticed": not found["damage"]["refused_by_name"],
        "damage gives wrong answers": found["damage"]["neither_right_nor_refused"],
        "a mended store stays broken": found["damage"]["wrong_after_mending"],
        "readers that come back miss something": found["resumed"]["out_of_order"],
        "responses in the background differ": found["resumed"]["wrong"],
        "SIGTERM breaks what runs": not found["sigterm"]["running_ended"],
        "SIGTERM does not refuse": found["sigterm"]["waiting_refused"] != 4,
        "SIGTERM ends wrongly": found["sigterm"]["exit_code"] != -signal.SIGTERM,
    }
    if "cgroup" in found:
        checks["the cap is exceeded"] = found["cgroup"]["oom_kills"]
    return [name for name, is_so in checks.items() if is_so]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    demo = Path(str(files("edgemoe").joinpath("demo_store")))
    parser.add_argument("store", nargs="?", type=Path, default=demo)
    parser.add_argument("--memory", default="100MiB", help="budget, and size of the cgroup")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stalls", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.store, arguments.memory, arguments.stalls)
        return 0
    found = soak(arguments.store, arguments.memory, arguments.requests, arguments.at_once)
    faults = faults_of(found, arguments.memory)
    for part, values in found.items():
        print(f"{part:8} " + ", ".join(f"{name} {value}" for name, value in values.items()))
    if "cgroup" in found:
        print(f"peak     {format_size(found['cgroup']['peak_bytes'])} of {arguments.memory}")
    print("faults   " + ("; ".join(faults) or "none"))
    print(json.dumps({"benchmark": "soak", "requests": arguments.requests, **found, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
