"""The parts of streaming added one by one, as the paper's Fig. 18 does, on any store and device.

    edgemoe plan models/edgemoe-16m --tolerance 2% --text FILE -o plan.json
    edgemoe convert models/edgemoe-16m q8.store --bits 8       # and q4.store, and planned.store by --plan
    edgemoe trace q4.store --text FILE -o q4.trace && edgemoe fit q4.trace -o q4.store    # and planned.store
    python benchmarks/ablation.py q4.store --wide q8.store --planned planned.store --text FILE --device nvme

Each way gets the same memory, a share of the bytes that the experts of STORE take: on demand (keeps nothing)
at 8 bits, the paper's IO-EXP, and at 4 bits, IO-QEXP; with planned widths; with reading ahead besides; with
the cache besides, and that without rehearsals; and at uniform 4 bits a plain cache (the least recently used
leaves, worker threads read), the cache with the paper's eviction, with ours, and with reading ahead, without
rehearsals and with them. Speeds are shares of that with every expert of STORE in memory, timed in turns
(turns.py); the bound is the larger of computing and of reading what Belady's policy would. "reading ahead" is
the share of tokens for which the engine did not stop it. With -o, rows of the same store and device are
replaced in FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from make_model import token_chain
from turns import TURN_TOKENS, Way, take_turns

import edgemoe
from edgemoe.bench import held_to, mode_options
from edgemoe.calib.routing import Setting, fit_routing, simulate
from edgemoe.calib.trace import Trace, record_trace
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.engine.storage import tune_depth
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.experts import FORECAST, NoPredictor, save_fitted
from edgemoe.models import read_spec
from edgemoe.store import DEVICES, Device, Store, find_device, open_store

THIS = "this-machine"
RESIDENT, WIDE, NARROW = "all in memory", "on demand, 8 bits (IO-EXP)", "on demand, 4 bits (IO-QEXP)"
CONTEXT = 1024
# How other engines stream: the least recently used leaves, threads read, nothing is foretold.
PLAIN = {"policy": "lru", "reader": "direct"}
# Without a cache, preloads still need places: those of the present layer and of two layers ahead.
PRELOAD_LAYERS = 3


def plan_ways(
    stores: dict[str, Store], cache_bytes: int, device: Device | None
) -> list[tuple[str, Store, LoadOptions]]:
    """(name, store, options) of every way that these stores allow; the resident one first."""

    def options(mode: str, name: str, **changes: Any) -> LoadOptions:
        made = mode_options(mode, stores[name], None, cache_bytes, device)
        return replace(made, context=CONTEXT, **changes)

    ways = [(RESIDENT, stores["narrow"], options("resident", "narrow"))]
    if "wide" in stores:
        ways.append((WIDE, stores["wide"], options("on-demand", "wide")))
    ways.append((NARROW, stores["narrow"], options("on-demand", "narrow")))
    if "planned" in stores:
        planned, on_demand = stores["planned"], options("on-demand", "planned")
        assert on_demand.cache_bytes is not None
        few = min(cache_bytes, PRELOAD_LAYERS * on_demand.cache_bytes)
        ways += [
            ("widths", planned, on_demand),
            ("widths, reading ahead", planned, options("full", "planned", cache_bytes=few)),
            ("widths, reading ahead, cache", planned, options("full", "planned")),
            (
                "widths, reading ahead without rehearsals, cache",
                planned,
                options("full", "planned", max_rehearsed=0),
            ),
        ]
    ways += [
        ("4 bits, cache, lru, threads", stores["narrow"], options("cache", "narrow", **PLAIN)),
        ("4 bits, cache, edgemoe", stores["narrow"], options("cache", "narrow", policy="edgemoe")),
        ("4 bits, cache, forecast", stores["narrow"], options("cache", "narrow", policy=FORECAST)),
        (
            "4 bits, cache, reading ahead without rehearsals",
            stores["narrow"],
            options("full", "narrow", max_rehearsed=0),
        ),
        ("4 bits, cache, reading ahead", stores["narrow"], options("full", "narrow")),
    ]
    return ways


def measure(
    plan: Sequence[tuple[str, Store, LoadOptions]],
    token_ids: Sequence[int],
    device: Device | None,
    num_turns: int,
    turn_tokens: int,
) -> tuple[list[Way], str | None]:
    """Load every way, then time all in turns; also what bounded the reads."""
    ways: list[Way] = []
    try:
        # What is resident is loaded at this machine's speed.
        ways.append(_load(*plan[0], token_ids))
        with held_to(device, plan[0][1].path, None) as bounded_by:
            ways += [_load(*way, token_ids) for way in plan[1:]]
            take_turns(ways, token_ids, num_turns, turn_tokens)
    finally:
        for way in ways:
            way.engine.experts.close()
    return ways, bounded_by


def _load(name: str, store: Store, options: LoadOptions, token_ids: Sequence[int]) -> Way:
    way = Way(name, load_engine(store, options))
    if name == RESIDENT:
        way.engine.experts.preload()
    way.engine.session.prefill(token_ids[:2])
    return way


def belady_bytes(store: Store, trace: Trace, share: float) -> float:
    """Bytes per token that Belady's policy reads on this trace."""
    setting = Setting(trace, trace.num_tokens, find_device("nvme"), 1e-3)
    return simulate(setting, share, "belady", NoPredictor(), "none").bytes_read


def storage_bytes_per_s(store: Store, device: Device | None) -> float:
    """What the device delivers, or this machine's storage as the engine measures it."""
    if device is not None:
        return device.bytes_per_s
    reader = store.open_expert_reader("auto", store.depths[-1], None)
    try:
        return tune_depth(store, reader).bytes_per_s
    finally:
        reader.close()


def rows(ways: Sequence[Way], facts: dict[str, Any], bound_bytes_s: float) -> list[dict[str, Any]]:
    """One JSON object for each way."""
    medians = {way.name: way.median_s for way in ways}
    bound_s = max(medians[RESIDENT], bound_bytes_s)
    return [
        {
            **facts,
            "way": way.name,
            "ms_per_token": 1e3 * way.median_s,
            "share_of_resident": medians[RESIDENT] / way.median_s,
            "over_io_exp": medians[WIDE] / way.median_s if WIDE in medians else None,
            "over_io_qexp": medians[NARROW] / way.median_s,
            "of_bound": way.median_s / bound_s,
            "bytes_per_token": way.bytes_read / way.num_tokens,
            "ahead_share": way.tokens_ahead / way.num_tokens if "reading ahead" in way.name else None,
        }
        for way in ways
    ]


def print_rows(found: Sequence[dict[str, Any]]) -> None:
    """A Markdown table."""
    print(
        "\n| device | memory | way | ms a token | of resident | over IO-EXP | over IO-QEXP | of the bound ",
        end="",
    )
    print("| MiB a token | reading ahead |\n|---|---:|---|" + "---:|" * 7)
    for row in found:
        wide = "" if row["over_io_exp"] is None else f"{row['over_io_exp']:.2f}x"
        ahead = "" if row["ahead_share"] is None else f"{row['ahead_share']:.0%}"
        print(
            f"| {row['device']} | {row['capacity']:.0%} | {row['way']} | {row['ms_per_token']:.2f} "
            f"| {row['share_of_resident']:.2f} | {wide} | {row['over_io_qexp']:.2f}x "
            f"| {row['of_bound']:.2f}x | {row['bytes_per_token'] / 2**20:.2f} | {ahead} |"
        )


def write_rows(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """Keep the rows of other stores, devices and capacities."""
    place = ("store", "device", "capacity")
    new = {tuple(row[key] for key in place) for row in found}
    old = json.loads(path.read_text()) if path.exists() else []
    kept = [row for row in old if tuple(row[key] for key in place) not in new]
    path.write_text(json.dumps([*kept, *found], indent=1) + "\n")


def read_tokens(store: Store, text: Path | None, num_tokens: int) -> tuple[list[int], Trace]:
    """The text's beginning, or a made-up text, as tokens; and its trace."""
    with (
        tempfile.TemporaryDirectory() as name,
        edgemoe.load(store.path, context=CONTEXT, predictor="none") as model,
    ):
        if text is None:
            ids = token_chain(num_tokens, seed=7)
        else:
            with text.open(encoding="utf-8") as file:
                ids = model.tokenizer.encode(file.read(32 * num_tokens))[:num_tokens]
        trace = record_trace(model.engine, {"text": ids}, Path(name) / "trace")
    return ids, trace


def fit_made_up(store: Store, num_tokens: int) -> Store:
    """Fit a store of make_model.py to a made-up text, another than the one that is followed."""
    with (
        tempfile.TemporaryDirectory() as name,
        edgemoe.load(store.path, context=CONTEXT, predictor="none") as model,
    ):
        trace = record_trace(model.engine, {"text": token_chain(num_tokens, seed=1)}, Path(name) / "trace")
        spec = read_spec(store.config)
        return save_fitted(store, fit_routing(trace, spec, read_dense_weights(spec, store))[0])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="at uniform 4 bits, fitted")
    parser.add_argument("--wide", type=Path, help="the same model at 8 bits")
    parser.add_argument("--planned", type=Path, help="the same model by a plan, fitted")
    parser.add_argument("--text", type=Path, help="to follow; default: a made-up one for make_model.py")
    parser.add_argument(
        "--fit-made-up",
        type=int,
        metavar="TOKENS",
        help="first fit the stores, which stay so, to a made-up text",
    )
    parser.add_argument("--device", choices=[THIS, *DEVICES], default=THIS)
    parser.add_argument("--capacity", type=float, default=0.25, help="share of STORE's experts in memory")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--turn-tokens", type=int, default=TURN_TOKENS, help="tokens of a turn")
    parser.add_argument("--tokens", type=int, default=600, help="length of the text")
    parser.add_argument("--out", "-o", type=Path)
    args = parser.parse_args()
    paths = {"narrow": args.store, "wide": args.wide, "planned": args.planned}
    stores = {name: open_store(path) for name, path in paths.items() if path is not None}
    if args.fit_made_up:
        for name in stores.keys() & {"narrow", "planned"}:
            stores[name] = fit_made_up(stores[name], args.fit_made_up)
    narrow = stores["narrow"]
    device = None if args.device == THIS else find_device(args.device)
    ids, trace = read_tokens(narrow, args.text, args.tokens)
    total = sum(entry.num_bytes for entry in narrow.manifest.experts.values())
    bound_bytes_s = belady_bytes(narrow, trace, args.capacity) / storage_bytes_per_s(narrow, device)
    plan = plan_ways(stores, int(args.capacity * total), device)
    ways, bounded_by = measure(plan, ids, device, args.turns, args.turn_tokens)
    if bounded_by is not None:
        print(f"storage bounded by {bounded_by}", file=sys.stderr)
    facts = {"store": args.store.name, "device": args.device, "capacity": args.capacity}
    found = rows(ways, {**facts, "bounded_by": bounded_by}, bound_bytes_s)
    print_rows(found)
    if args.out:
        write_rows(args.out, found)


if __name__ == "__main__":
    main()
