"""A store behind a network against the same on this disk: what reading ahead and the local tier are worth.

    python benchmarks/remote.py STORE --text FILE --latency-ms 30 -o remote.json
    python benchmarks/remote.py olmoe.store --fit-made-up 4096 --turns 6      # a store of make_model.py

A server on loopback gives the store's files after so many milliseconds each. Every way has the same memory, a
share of the experts, and follows the same text, timed in turns (turns.py):

* all experts in memory; the store on this disk;
* over the network without a tier: without reading ahead, with it but without rehearsals, and with all;
* with a tier that holds every expert ("warm tier").

Tables on stdout, one JSON line in the file. Speeds are shares of that of the store on this disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablation import fit_made_up, read_tokens
from range_server import start_server
from tables import replace_between
from turns import TURN_TOKENS, Way, take_turns

from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.native import aligned_empty
from edgemoe.store import Store, open_store
from edgemoe.store.remote.reader import TieredReader
from edgemoe.units import MIB

RESIDENT, LOCAL, WARM = "all in memory", "this disk", "warm tier"
CONTEXT = 1024


def plan_ways(local: Store, far: Store, cache_bytes: int) -> list[tuple[str, Store, LoadOptions]]:
    """(name, store, options) of every way."""
    total = sum(entry.num_bytes for entry in local.manifest.experts.values())

    return [
        (RESIDENT, local, load_options(total)),
        (LOCAL, local, load_options(cache_bytes)),
        ("network, no reading ahead", far, load_options(cache_bytes, tier_bytes=0, predictor="none")),
        ("network, no rehearsals", far, load_options(cache_bytes, tier_bytes=0, max_rehearsed=0)),
        ("network", far, load_options(cache_bytes, tier_bytes=0)),
        (WARM, far, load_options(cache_bytes, tier_bytes=total)),
    ]


def load_options(cache_bytes: int, **changes: Any) -> LoadOptions:
    """With so many bytes for experts."""
    return LoadOptions(**{"context": CONTEXT, "cache_bytes": cache_bytes, **changes})


def fill_tier(far: Store) -> None:
    """Read every expert until the tier has it: what comes too fast to be written is not kept at once."""
    entries = list(far.manifest.experts.values())
    total = sum(entry.num_bytes for entry in entries)
    reader = far.with_tier(total).open_expert_reader("auto", far.depths[-1])
    assert isinstance(reader, TieredReader)
    buffer = aligned_empty(max(entry.num_bytes for entry in entries))
    while reader.tier.held_bytes < total:
        for entry in entries:
            place = far.file_index(entry), entry.offset
            if reader.tier.find(*place, entry.num_bytes) is None:
                reader.wait(reader.submit(*place, buffer[: entry.num_bytes]))
                reader.tier.flush()
    reader.close()


def measure(
    plan: Sequence[tuple[str, Store, LoadOptions]],
    ids: Sequence[int],
    num_turns: int,
    turn_tokens: int,
    new_way: Callable[[str, Engine], Way] = Way,
) -> list[Way]:
    """Load every way, then time all in turns."""
    ways: list[Way] = []
    try:
        for name, store, options in plan:
            ways.append(new_way(name, load_engine(store, options)))
            if name == RESIDENT:
                ways[-1].engine.experts.preload()
            ways[-1].engine.session.prefill(ids[:2])
        take_turns(ways, ids, num_turns, turn_tokens)
    finally:
        for way in ways:
            way.engine.close()
    return ways


def row(way: Way, local: Way) -> dict[str, Any]:
    """What is told of one way; speed against the local store turn by turn, so that both met the same."""
    shares = [theirs / ours for theirs, ours in zip(local.times_s, way.times_s, strict=True)]
    counts = way.engine.experts.counts
    return {
        "way": way.name,
        "tokens_per_s": 1 / way.median_s,
        "share_of_local": statistics.median(shares),
        "spread": (min(shares), max(shares)),
        "bytes_per_token": way.bytes_read / way.num_tokens,
        "hit_share": counts.hits / max(1, counts.hits + counts.misses),
        "far_bytes": counts.far_bytes,
        "tier_bytes": counts.tier_bytes,
        "reading_ahead": way.tokens_ahead / way.num_tokens,
    }


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """What is run on which text, and where the results go."""
    parser.add_argument("store", type=Path, help="a folder")
    parser.add_argument("--text", type=Path, help="to follow; default: a made-up one for make_model.py")
    parser.add_argument("--tokens", type=int, default=600, help="length of the text")
    parser.add_argument("--fit-made-up", type=int, metavar="TOKENS", help="as in ablation.py")
    parser.add_argument("--out", "-o", type=Path)
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="put the table there")


def open_with_text(args: argparse.Namespace) -> tuple[Store, Sequence[int]]:
    """The store, and the tokens to follow."""
    store = open_store(args.store)
    if args.fit_made_up:
        store = fit_made_up(store, args.fit_made_up)
    return store, read_tokens(store, args.text, args.tokens)[0]


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    print("| way | tokens/s | of this disk | spread | MiB/token | hits | reading ahead |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        low, high = r["spread"]
        print(
            f"| {r['way']} | {r['tokens_per_s']:.2f} | {r['share_of_local']:.1%} | {low:.0%}-{high:.0%} |"
            f" {r['bytes_per_token'] / MIB:.2f} | {r['hit_share']:.0%} | {r['reading_ahead']:.0%} |"
        )


def write_rows(document: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put the table between its marks."""
    lines = ["| way | tokens/s | of this disk | MiB/token | hits |", "|---|---|---|---|---|"]
    for r in rows:
        read = f"{r['bytes_per_token'] / MIB:.0f}"
        speed = f"{r['tokens_per_s']:.1f} | {r['share_of_local']:.0%}"
        lines.append(f"| {r['way']} | {speed} | {read} | {r['hit_share']:.0%} |")
    replace_between(document, "remote", lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_text_arguments(parser)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--mbit", type=float, help="of the line; default: as fast as loopback")
    parser.add_argument("--capacity", type=float, default=0.25, help="share of the experts in memory")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--turn-tokens", type=int, default=TURN_TOKENS, help="tokens of a turn")
    args = parser.parse_args()
    local, ids = open_with_text(args)
    total = sum(entry.num_bytes for entry in local.manifest.experts.values())
    with (
        tempfile.TemporaryDirectory(dir=args.store.parent) as home,  # a tier on the disk of the store
        start_server(args.store.resolve(), args.latency_ms, args.mbit) as url,
    ):
        os.environ["EDGEMOE_HOME"] = home
        far = open_store(url)
        fill_tier(far)
        plan = plan_ways(local, far, int(args.capacity * total))
        ways = measure(plan, ids, args.turns, args.turn_tokens)
    local_way = next(way for way in ways if way.name == LOCAL)
    rows = [row(way, local_way) for way in ways]
    print_rows(rows)
    facts = {
        "store": args.store.name,
        "latency_ms": args.latency_ms,
        "mbit": args.mbit,
        "capacity": args.capacity,
    }
    record = {"benchmark": "remote", **facts, "ways": rows}
    print(json.dumps(record))
    if args.out:
        args.out.write_text(json.dumps(record) + "\n")
    if args.write:
        write_rows(args.write, rows)


if __name__ == "__main__":
    main()
