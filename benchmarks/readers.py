"""Experts read by io_uring against experts read by worker threads: the same store, cache and text, in turns.

    python benchmarks/readers.py STORE --text FILE --capacity 0.5   # without a text: of make_model.py

Times a token with part of the experts in memory, without and with reading ahead, and says how many seconds of
processor a token took: threads are woken on the cores that compute.
"""

from __future__ import annotations

import argparse
import json
import resource
from dataclasses import replace
from pathlib import Path

from ablation import CONTEXT, read_tokens
from turns import Way, take_turns

from edgemoe.bench import mode_options
from edgemoe.engine.loading import load_engine
from edgemoe.store import open_store

READERS = {"ring": "io_uring", "direct": "worker threads"}
MODES = {"cache": "", "full": ", reading ahead"}


class TimedWay(Way):
    """A way that also notes its processor time."""

    cpu_s = 0.0

    def turn(self, token_ids: list[int]) -> None:
        """See Way."""
        before_s = _cpu_s()
        super().turn(token_ids)
        self.cpu_s += _cpu_s() - before_s

    def forget(self) -> None:
        """See Way."""
        super().forget()
        self.cpu_s = 0.0


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--text", type=Path, help="followed token by token; without one, a made-up text")
    parser.add_argument("--capacity", type=float, default=0.5, help="share of the experts' bytes in memory")
    parser.add_argument("--turns", type=int, default=60)
    args = parser.parse_args()
    store = open_store(args.store)
    token_ids, _ = read_tokens(store, args.text, 2000)
    cache_bytes = int(args.capacity * sum(entry.num_bytes for entry in store.manifest.experts.values()))
    ways = []
    for mode, suffix in MODES.items():
        options = replace(mode_options(mode, store, None, cache_bytes, None), context=CONTEXT)
        for reader, name in READERS.items():
            engine = load_engine(store, replace(options, reader=reader))
            engine.session.prefill(token_ids[:2])
            ways.append(TimedWay(name + suffix, engine))
    take_turns(ways, token_ids, args.turns)
    print("| way | ms a token | of worker threads | processor ms |\n|---|---:|---:|---:|")
    for way, threads in zip(ways, [ways[1], ways[1], ways[3], ways[3]], strict=True):
        print(
            f"| {way.name} | {1e3 * way.median_s:.2f} | {way.median_s / threads.median_s:.2f} "
            f"| {1e3 * way.cpu_s / way.num_tokens:.2f} |"
        )
    facts = {"store": args.store.name, "capacity": args.capacity}
    print(json.dumps({**facts, "ms": {way.name: 1e3 * way.median_s for way in ways}}))


if __name__ == "__main__":
    main()
