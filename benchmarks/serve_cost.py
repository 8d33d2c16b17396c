"""What the server costs: tokens per second over HTTP beside the Python interface, and under a schema.

    python benchmarks/serve_cost.py [STORE] [--memory 256MiB] [--rounds 15] [--tokens 64]

The same model in the same process answers in turns: through ``Model.stream_chat``, through the server, and
through the server under a JSON schema. The server's client is a process of its own that does little more
than read. No answer may end early. What is compared is the share of time that each round's turn took longer
than the turn it is compared with; the card has the median of these and the middle half of them, as other work
on the machine meets all ways alike.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from served import served

MESSAGES = [{"role": "user", "content": "Tell a long story."}]
# Of strings, numbers and choices, and so long that no answer comes to its end.
ENTRY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 0, "maximum": 99_999},
        "kind": {"enum": ["fox", "bear", "owl"]},
    },
    "required": ["name", "count", "kind"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": ENTRY, "minItems": 1000}
DRAW = {"temperature": 1.0, "seed": 1}


@contextmanager
def client(url: str):
    """A process that asks the server; gives a function from a request to tokens per second."""
    command = [sys.executable, __file__, "--client", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(body: dict) -> float:
            print(json.dumps(body), file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield ask
        process.stdin.close()


def be_client(url: str) -> None:
    """Send each line of stdin as a request; print its tokens per second."""
    address = urlsplit(url)
    for line in sys.stdin:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
        connection.request("POST", "/v1/chat/completions", line, {"content-type": "application/json"})
        first_s = last_s = 0.0
        num_tokens = 0
        for piece in connection.getresponse():
            if b'"content":"' in piece:
                last_s = time.perf_counter()
                first_s = first_s or last_s
            elif b'"predicted_n":' in piece:
                num_tokens = json.loads(piece.removeprefix(b"data: "))["timings"]["predicted_n"]
        connection.close()
        print((num_tokens - 1) / (last_s - first_s), flush=True)


def speed_of_api(model, num_tokens: int, bias: dict[int, float]) -> float:
    """Tokens per second of the model itself."""
    times = [
        time.perf_counter()
        for _ in model.stream_chat(MESSAGES, max_tokens=num_tokens, logit_bias=bias, **DRAW)
    ]
    return (len(times) - 1) / (times[-1] - times[0])


def measure(app, ask, rounds: int, num_tokens: int) -> dict[str, list[float]]:
    """Tokens per second of each way, one for each round; the order of turns is drawn."""
    local = app.shelf.resident
    bias = dict.fromkeys(local.stop_ids, -100.0)
    plain = {"model": "model", "messages": MESSAGES, "stream": True, "max_tokens": num_tokens, **DRAW}
    plain["logit_bias"] = {str(token_id): value for token_id, value in bias.items()}
    form = {"type": "json_schema", "json_schema": {"name": "animals", "schema": SCHEMA}}
    ways = {
        "api": lambda: speed_of_api(local.model, num_tokens, bias),
        "server": lambda: ask(plain),
        "schema": lambda: ask({**plain, "response_format": form}),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(0)
    for turn in range(-1, rounds):  # the first is for warming up
        print(f"round {turn + 1} of {rounds}" if turn >= 0 else "warming up", file=sys.stderr)
        for name in order.sample(list(ways), len(ways)):
            speed = ways[name]()
            if turn >= 0:
                speeds[name].append(speed)
    return speeds


def extra(slow: Sequence[float], quick: Sequence[float]) -> list[float]:
    """Quartiles of the time that a token of one way takes more, in percent."""
    shares = [100 * (q / s - 1) for s, q in zip(slow, quick, strict=True)]
    return [round(value, 2) for value in statistics.quantiles(shares, n=4)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    demo = Path(str(files("edgemoe").joinpath("demo_store")))
    parser.add_argument("store", nargs="?", type=Path, default=demo)
    parser.add_argument("--memory", default="256MiB")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        be_client(arguments.client)
        return
    with (
        served(arguments.store, arguments.memory, context=arguments.tokens + 128) as (url, app),
        client(url) as ask,
    ):
        speeds = measure(app, ask, arguments.rounds, arguments.tokens)
    median = {name: statistics.median(values) for name, values in speeds.items()}
    record = {
        "store": arguments.store.name,
        "memory": arguments.memory,
        "rounds": arguments.rounds,
        "tokens": arguments.tokens,
        "tokens_per_s": {name: round(value, 2) for name, value in median.items()},
        "ms_per_token": {name: round(1000 / value, 3) for name, value in median.items()},
        "server_extra_percent": extra(speeds["server"], speeds["api"]),
        "schema_extra_percent": extra(speeds["schema"], speeds["server"]),
    }
    print(f"{record['store']}, {arguments.memory}: tokens/s {record['tokens_per_s']}")
    for name, than in (("server", "api"), ("schema", "server")):
        low, middle, high = record[f"{name}_extra_percent"]
        print(
            f"{name}: a token takes {middle} % more than by {than} (middle half of rounds {low} to {high} %)"
        )
    print(json.dumps(record))


if __name__ == "__main__":
    main()
