"""What streaming costs and what each of its parts gains, on real text.

    python benchmarks/streaming.py MODEL --fit FILE... --text NAME=FILE... [-o docs/streaming.json]

MODEL is a checkpoint folder; it is converted to 8 and to 4 bits, traced on the `--fit` texts and fitted.
Measured on the `--text` files, which nothing was fitted on:

* recall of every predictor one layer ahead, per text and layer;
* hits of every eviction policy as a share of Belady's, and what reading ahead adds, by simulation;
* time per token of the ways of running, interleaved in short turns within one process, for this machine's
  storage and every device profile, with 25 % and 50 % of the experts in memory: on demand at 8 bits (the
  paper's IO-EXP), on demand at 4 bits (IO-QEXP), cache, cache with reading ahead; as a share of the speed
  with all experts in memory, and against the bound: the larger of computing and reading Belady's bytes;
* the share of tokens for which the governor left reading ahead on.

Nothing else should run meanwhile. Tables on stdout, one JSON object in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import edgemoe
from edgemoe.calib import Setting, Trace, fit_routing, measure_recall, record_trace, simulate
from edgemoe.cli.bench_modes import mode_options
from edgemoe.convert import convert
from edgemoe.engine.loading import Engine, load_engine, read_dense_weights
from edgemoe.engine.prediction import build_predictor
from edgemoe.experts import POLICIES, NoPredictor, save_fitted
from edgemoe.models import read_spec
from edgemoe.quant import BitPlan
from edgemoe.store import DEVICES, Store, find_device, open_store

SHARES = (0.25, 0.5)
PREDICTORS = ("table", "gate", "gate-fitted", "hybrid")
# (name, bits, mode of `edgemoe bench`); the first is what the others are shares of.
WAYS = (
    ("all in memory", "q4", "resident"),
    ("on demand, 8 bits", "q8", "on-demand"),
    ("on demand, 4 bits", "q4", "on-demand"),
    ("cache", "q4", "cache"),
    ("cache, reading ahead", "q4", "full"),
)
WARM_TOKENS, TURN_TOKENS = 96, 24
SLOW = ("jetson-tx2-usb", "rpi4-sd")
FIT_TOKENS, TRACE_TOKENS = 24576, 3072


@dataclass
class Way:
    """One way of running, and its times per token, one for each turn."""

    name: str
    engine: Engine
    times_s: list[float] = field(default_factory=list)
    tokens_ahead: int = 0  # tokens with reading ahead on

    def turn(self, token_ids: Sequence[int]) -> None:
        """Follow a piece of text."""
        began_s = time.perf_counter()
        for token_id in token_ids:
            self.engine.session.step(token_id)
            self.tokens_ahead += self.engine.experts.is_reading_ahead
        self.times_s.append((time.perf_counter() - began_s) / len(token_ids))


def prepare(model: Path, folder: Path, texts: Sequence[Path]) -> dict[str, Store]:
    """Stores of 8 and 4 bits; the latter with fitted predictors."""
    for bits in ("q8", "q4"):
        convert(model, folder / bits, BitPlan.uniform(bits, "q8"))
    store = open_store(folder / "q4")
    spec = read_spec(store.config)
    trace = trace_texts(store, {path.name: path for path in texts}, folder / "fit", FIT_TOKENS)
    fitted, _ = fit_routing(trace, spec, read_dense_weights(spec, store))
    return {"q8": open_store(folder / "q8"), "q4": save_fitted(store, fitted)}


def trace_texts(store: Store, texts: Mapping[str, Path], folder: Path, num_tokens: int) -> Trace:
    with edgemoe.load(store.path, context=512, predictor="none") as model:
        share = num_tokens // len(texts)
        ids = {name: encode_beginning(model, path, share) for name, path in texts.items()}
        return record_trace(model.engine, ids, folder)


def encode_beginning(model: edgemoe.Model, path: Path, num_tokens: int) -> list[int]:
    with path.open(encoding="utf-8") as file:
        return model.tokenizer.encode(file.read(32 * num_tokens))[:num_tokens]


def measure_predictors(store: Store, traces: Mapping[str, Trace]) -> dict[str, Any]:
    """Recall by predictor and text: exact and wider over all layers, and exact per layer."""
    spec = read_spec(store.config)
    weights = read_dense_weights(spec, store)
    found: dict[str, Any] = {}
    for name in PREDICTORS:
        for text, trace in traces.items():
            recall = measure_recall(build_predictor(spec, weights, store, name), trace)
            exact, wider = recall.mean()
            layers = [round(value, 4) for value in recall.exact.tolist()]
            found.setdefault(name, {})[text] = {"exact": exact, "wider": wider, "layers": layers}
    return found


def measure_policies(store: Store, trace: Trace, layer_s: float) -> list[dict[str, Any]]:
    setting = Setting(trace, trace.num_tokens, find_device("nvme"), layer_s)
    spec = read_spec(store.config)
    runs = [
        simulate(setting, share, policy, NoPredictor(), "none")
        for share in SHARES
        for policy in ("belady", *POLICIES)
    ]
    weights = read_dense_weights(spec, store)
    for share in SHARES:
        for name in PREDICTORS:
            predictor = build_predictor(spec, weights, store, name)
            runs.append(simulate(setting, share, "edgemoe", predictor, name))
    return [run.to_json() for run in runs]


def measure_speed(
    stores: Mapping[str, Store], token_ids: Sequence[int], device: str | None, share: float, num_turns: int
) -> list[Way]:
    """All ways in turn, each over the same text."""
    profile = None if device is None else find_device(device)
    ways = []
    for name, bits, mode in WAYS:
        store = stores[bits]
        total = sum(entry.num_bytes for entry in store.manifest.experts.values())
        engine = load_engine(store, mode_options(mode, store, None, int(share * total), profile))
        engine.experts.preload()
        engine.session.prefill(token_ids[:2])
        ways.append(Way(name, engine))
    try:
        for turn in range(-WARM_TOKENS // TURN_TOKENS, num_turns):
            first = 2 + (turn * TURN_TOKENS + WARM_TOKENS) % (len(token_ids) - TURN_TOKENS - 2)
            for way in ways:
                if len(way.engine.session.token_ids) + TURN_TOKENS > way.engine.session.num_slots:
                    way.engine.session.prefill(token_ids[:2])
                way.turn(token_ids[first : first + TURN_TOKENS])
                if turn < 0:
                    way.times_s.clear()
                    way.tokens_ahead = 0
    finally:
        for way in ways:
            way.engine.experts.close()
    return ways


def speed_rows(
    ways: list[Way], trace: Trace, device: str | None, share: float, num_turns: int
) -> list[dict[str, Any]]:
    """Medians, and what physics allows on this device: computing, or reading Belady's bytes."""
    resident_s = statistics.median(ways[0].times_s)
    rows = []
    bound_s = None
    if device is not None:
        setting = Setting(trace, trace.num_tokens, find_device(device), resident_s)
        best = simulate(setting, share, "belady", NoPredictor(), "none")
        bound_s = max(resident_s, best.bytes_read / find_device(device).bytes_per_s)
    for way in ways:
        median_s = statistics.median(way.times_s)
        rows.append(
            {
                "device": device or "this machine",
                "capacity": share,
                "way": way.name,
                "us_per_token": 1e6 * median_s,
                "share_of_resident": resident_s / median_s,
                "of_bound": None if bound_s is None else median_s / bound_s,
                "ahead_share": way.tokens_ahead / (num_turns * TURN_TOKENS),
            }
        )
    return rows


def print_recall(found: Mapping[str, Any]) -> None:
    texts = list(next(iter(found.values())))
    print("\n| predictor | " + " | ".join(texts) + " |\n|---|" + "---:|" * len(texts))
    for name, by_text in found.items():
        cells = [f"{by_text[t]['exact']:.3f}, {by_text[t]['wider']:.3f}" for t in texts]
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_policies(runs: Sequence[Mapping[str, Any]]) -> None:
    print("\n| policy | predictor | in memory | hits | of Belady's |\n|---|---|---:|---:|---:|")
    for run in runs:
        print(
            f"| {run['policy']} | {run['predictor']} | {run['capacity_share']:.0%} "
            f"| {run['hit_share']:.1%} | {run['share_of_belady']:.1%} |"
        )


def print_speed(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\n| storage | in memory | way | of resident | of the bound | gain over 8 bits on demand | ahead |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for row in rows:
        base = next(
            r
            for r in rows
            if r["way"] == WAYS[1][0] and (r["device"], r["capacity"]) == (row["device"], row["capacity"])
        )
        bound = "" if row["of_bound"] is None else f"{row['of_bound']:.2f}x"
        gain = row["share_of_resident"] / base["share_of_resident"]
        print(
            f"| {row['device']} | {row['capacity']:.0%} | {row['way']} | {row['share_of_resident']:.2f} "
            f"| {bound} | {gain:.2f}x | {row['ahead_share']:.0%} |"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--fit", type=Path, nargs="+", required=True)
    parser.add_argument("--text", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--turns", type=int, default=24, help=f"of {TURN_TOKENS} tokens, per way")
    parser.add_argument("--out", "-o", type=Path)
    args = parser.parse_args()
    texts = {name: Path(path) for name, _, path in (text.partition("=") for text in args.text)}
    with tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as name:
        folder = Path(name)
        stores = prepare(args.model, folder, args.fit)
        traces = {
            n: trace_texts(stores["q4"], {n: p}, folder / n, TRACE_TOKENS // 3) for n, p in texts.items()
        }
        recall = measure_predictors(stores["q4"], traces)
        print_recall(recall)
        mixed = trace_texts(stores["q4"], texts, folder / "mixed", TRACE_TOKENS)
        rows: list[dict[str, Any]] = []
        with edgemoe.load(stores["q4"].path, context=512) as model:
            piece = 2 + args.turns * TURN_TOKENS // len(texts)
            ids = [i for path in texts.values() for i in encode_beginning(model, path, piece)]
        for device in (None, *DEVICES):
            # A slow device needs fewer turns for the same certainty, and far more time for each.
            turns = (
                args.turns if device is None or DEVICES[device].bytes_per_s > 1e8 else max(8, args.turns // 3)
            )
            for share in SHARES:
                print(f"timing {device or 'this machine'}, {share:.0%}", file=sys.stderr)
                ways = measure_speed(stores, ids, device, share, turns)
                rows += speed_rows(ways, mixed, device, share, turns)
        resident_s = rows[0]["us_per_token"] / 1e6
        policies = measure_policies(stores["q4"], mixed, resident_s / mixed.catalog.num_layers)
        print_policies(policies)
        print_speed(rows)
    if args.out:
        record = {"recall": recall, "policies": policies, "speed": rows}
        args.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
