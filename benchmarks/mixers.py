"""Token mixers at the shapes of known models, beside llama.cpp's operations and the speed of memory.

python benchmarks/mixers.py [--rounds 9] [--threads 2] [--kind WORD] [--write docs/benchmarks.md]

Prints a card and one JSON line. What is timed is what stands between a layer's projections: attention to a
cache of 4,096 tokens (or of a window), or convolution and recurrence. The engine's own calls run beside
ggml's operations as llama.cpp puts them together (where llama-cpp-python is installed), on as many threads,
in turns with reading memory between; medians are given. With one thread they are of processor time, which
other work on the machine does not lengthen; with more of wall time, as threads that wait spin. One token
passes all layers of the kind that its model has, each with a state of its own, so that states come from
memory as they do while a text is written; 512 tokens pass one layer. Values are compared first: a rival that
computes something else is none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ggml import Ggml, find_ggml
from mixer_kinds import KINDS, Kind
from tables import replace_between

from edgemoe import native

PROMPT = 512
# Threads of an engine go on spinning for a while, on a core that the next one needs; see kernels.py.
NUM_SPACERS = 3
READ_BYTES = 128 * 2**20
# Halves that are added up in halves, as ggml does for one token, are off by this much of their norm.
RELATIVE = 1e-2


def medians(runs: dict[str, Any], num_rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of every run; they take turns, with ``read`` between."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_rounds + 1):
        for name, run in runs.items():
            for _ in range(NUM_SPACERS):
                runs["read"]()
            began_s = clock()
            run()
            times[name].append(clock() - began_s)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def measure(
    kind: Kind, num_tokens: int, ggml: Ggml | None, memory: Any, arguments: argparse.Namespace
) -> dict[str, float]:
    """One layer's seconds, bytes and ratios."""
    layers = kind.layers if num_tokens == 1 else 1
    run, found = kind.ours(num_tokens, layers)
    runs: dict[str, Any] = {"read": lambda: native.read_memory(memory), "ours": run}
    run()
    graph = None
    if ggml is not None:
        graph, runs["rival"], of_rival = kind.rival(ggml, num_tokens, layers, arguments.threads)
        runs["rival"]()
        expected, actual = of_rival(), found()
        error = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
        assert error < RELATIVE, f"{kind.title}: llama.cpp computes something else ({error:.1e})"
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    seconds = medians(runs, arguments.rounds, clock)
    num_bytes = kind.bytes_read(num_tokens)
    speed = layers * num_bytes / seconds["ours"]
    record = {
        "ms": 1e3 * seconds["ours"] / layers,
        "mbytes": num_bytes / 1e6,
        "gb_per_s": speed / 1e9,
        "of_reading": speed / (READ_BYTES / seconds["read"]),
    }
    if graph is not None:
        graph.close()
        record |= {"to_rival": seconds["ours"] / seconds["rival"], "difference": error}
    return record


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: a row for every kind."""
    lines = [
        "| what mixes | shape of | MB a token | one token, ms | of reading memory | beside llama.cpp"
        " | 512 tokens, ms | beside llama.cpp |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in records:
        one, many = r["one"], r["many"]
        beside = [f"{m['to_rival']:.2f}x" if "to_rival" in m else "" for m in (one, many)]
        lines.append(
            f"| {r['title']} | {r['model']} | {one['mbytes']:.2f} | {one['ms']:.3f} | {one['of_reading']:.2f}"
            f" | {beside[0]} | {many['ms']:.1f} | {beside[1]} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kind", default="", help="only those with this in their title or model")
    parser.add_argument("--write", type=Path, help="document to put the table into")
    arguments = parser.parse_args()
    native.set_num_threads(arguments.threads)
    ggml, memory = find_ggml(), native.aligned_empty(READ_BYTES)
    memory[:] = 1
    records = []
    for kind in KINDS:
        if arguments.kind not in f"{kind.title} {kind.model}":
            continue
        print(f"timing {kind.title} of {kind.model}", file=sys.stderr)
        one, many = (measure(kind, tokens, ggml, memory, arguments) for tokens in (1, PROMPT))
        records.append({"title": kind.title, "model": kind.model, "one": one, "many": many})
    print(f"{native.active_isa()}, {arguments.threads} threads; our time over llama.cpp's")
    print("\n".join(table(records)))
    if arguments.write:
        replace_between(arguments.write, "mixers", table(records))
    print(json.dumps({"benchmark": "mixers", "isa": native.active_isa(), "results": records}))


if __name__ == "__main__":
    main()
