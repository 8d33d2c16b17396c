"""What streaming forecasts and what it finds in the cache, on real text.

    python benchmarks/streaming.py MODEL --fit FILE... --text NAME=FILE... [-o streaming.json]

MODEL is a checkpoint folder; it is converted to 4 bits, traced on the `--fit` texts and fitted. Measured on
the `--text` files, which nothing was fitted on:

* recall of every predictor one layer ahead, per text and layer, forecasting K and 1.5 K experts;
* the same of rehearsals, in the engine: with part of the experts in memory, token by token, on storage paced
  so that it has to be waited for; which share of the layers was rehearsed, and what was read in vain;
* hits of every eviction policy as a share of Belady's, and what reading ahead adds, by simulation.

Tables on stdout, one JSON object in the file. What it means for speed is measured by ablation.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edgemoe
from edgemoe.calib.routing import Setting, fit_routing, measure_recall, simulate
from edgemoe.calib.trace import Trace, record_trace
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.engine.prediction import build_next_use, build_predictor
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.experts import FORECAST, POLICIES, ForecastRecord, NoPredictor, Predictor, save_fitted
from edgemoe.models import read_spec
from edgemoe.native import MAX_REHEARSED
from edgemoe.quant import BitPlan
from edgemoe.store import Device, Store, find_device, open_store
from edgemoe.text import Tokenizer

SHARES = (0.1, 0.25, 0.375, 0.5)
PREDICTORS = ("table", "gate", "gate-fitted", "hybrid")
FIT_TOKENS, TRACE_TOKENS = 65536, 3072
LAYER_S = 150e-6  # computing of one layer of the reference model on our machine
REHEARSED_SHARES = (0.25, 0.5)
# Waits as those for experts of real size, beside which a rehearsal is short.
SLOW = Device(bytes_per_s=2e9, latency_s=1e-3)


def prepare(model: Path, folder: Path, texts: Sequence[Path]) -> Store:
    """A store of 4 bits with fitted predictors."""
    convert(model, folder / "q4", BitPlan.uniform("q4", "q8"))
    store = open_store(folder / "q4")
    spec = read_spec(store.config)
    trace = trace_texts(store, {path.name: path for path in texts}, folder / "fit", FIT_TOKENS)
    fitted, _ = fit_routing(trace, spec, read_dense_weights(spec, store))
    return save_fitted(store, fitted)


def trace_texts(store: Store, texts: Mapping[str, Path], folder: Path, num_tokens: int) -> Trace:
    with edgemoe.load(store.path, context=512, predictor="none") as model:
        return record_trace(model.engine, encode_texts(store, texts, num_tokens // len(texts)), folder)


def encode_texts(store: Store, texts: Mapping[str, Path], num_tokens: int) -> dict[str, list[int]]:
    """The beginning of each text."""
    tokenizer = Tokenizer(store.path, store.config)
    found = {}
    for name, path in texts.items():
        with path.open(encoding="utf-8") as file:
            found[name] = tokenizer.encode(file.read(32 * num_tokens))[:num_tokens]
    return found


def measure_predictors(store: Store, traces: Mapping[str, Trace]) -> dict[str, Any]:
    """Recall by predictor and text: exact and wider over all layers, and exact per layer."""
    spec = read_spec(store.config)
    weights = read_dense_weights(spec, store)
    found: dict[str, Any] = {}
    for name in PREDICTORS:
        for text, trace in traces.items():
            print(f"recall of {name} on {text}", file=sys.stderr)
            recall = measure_recall(build_predictor(spec, weights, store, name), trace)
            exact, wider = recall.mean()
            layers = {
                key: [round(value, 4) for value in getattr(recall, key).tolist()]
                for key in ("exact", "wider")
            }
            found.setdefault(name, {})[text] = {"exact": exact, "wider": wider, "layers": layers}
    return found


def measure_rehearsals(store: Store, texts: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """How forecasts and rehearsals of the same run held, by text and share of the experts in memory."""
    total = sum(entry.num_bytes for entry in store.manifest.experts.values())
    rows = []
    for share in REHEARSED_SHARES:
        for text, ids in texts.items():
            print(f"rehearsals on {text}, {share:.0%} in memory", file=sys.stderr)
            options = LoadOptions(context=len(ids), cache_bytes=int(share * total), device=SLOW)
            engine = load_engine(store, options)
            try:
                engine.session.prefill(ids[:1])
                for token_id in ids[1:]:
                    engine.session.step(token_id)
                kinds = [engine.experts.forecast_records(d) for d in range(MAX_REHEARSED + 1)]
                wasted_bytes = engine.experts.counts.wasted_bytes
            finally:
                engine.experts.close()
            rows.append(
                {
                    "text": text,
                    "capacity_share": share,
                    # A token's first layer follows none of its own. The predictor's first, then by distance.
                    "forecasts": [_recalls(kind[distance or 1 :]) for distance, kind in enumerate(kinds)],
                    "wasted_bytes": wasted_bytes / (len(ids) - 1),
                }
            )
    return rows


def _num(records: Sequence[ForecastRecord]) -> int:
    return sum(record.num_forecasts for record in records)


def _recalls(records: Sequence[ForecastRecord]) -> dict[str, Any]:
    top_k = len(records[0].num_chosen) // 2
    found: dict[str, Any] = {"num": _num(records)}
    for key, num_ranks in (("exact", top_k), ("wider", top_k + top_k // 2)):
        mean = sum(record.recall(num_ranks) * record.num_forecasts for record in records) / _num(records)
        found[key] = round(mean, 4)
        found[f"{key}_by_layer"] = [round(record.recall(num_ranks), 4) for record in records]
    return found


def measure_policies(store: Store, trace: Trace) -> list[dict[str, Any]]:
    """Every policy without reading ahead; then the paper's and ours with every predictor."""
    spec = read_spec(store.config)
    next_use = build_next_use(spec, store, FORECAST)
    setting = Setting(trace, trace.num_tokens, find_device("nvme"), LAYER_S, next_use)
    weights = read_dense_weights(spec, store)
    found = []

    def replay(share: float, policy: str, name: str, predictor: Predictor) -> None:
        print(f"policy {policy}, predictor {name}, {share:.0%} in memory", file=sys.stderr)
        found.append(simulate(setting, share, policy, predictor, name).to_json())

    for share in SHARES:
        for policy in ("belady", *POLICIES):
            replay(share, policy, "none", NoPredictor())
    for share in SHARES:
        for policy in ("edgemoe", FORECAST):
            for name in PREDICTORS:
                replay(share, policy, name, build_predictor(spec, weights, store, name))
    return found


def print_recall(found: Mapping[str, Any]) -> None:
    texts = list(next(iter(found.values())))
    print("\n| predictor | " + " | ".join(texts) + " |\n|---|" + "---:|" * len(texts))
    for name, by_text in found.items():
        cells = [f"{by_text[t]['exact']:.3f}, {by_text[t]['wider']:.3f}" for t in texts]
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_rehearsals(rows: Sequence[Mapping[str, Any]]) -> None:
    names = [f"rehearsed, {distance} ahead" for distance in range(1, MAX_REHEARSED + 1)]
    print("\n| in memory | text | foretold | " + " | ".join(names) + " | KiB a token in vain |")
    print("|---:|---|---:|" + "---:|" * len(names) + "---:|")
    for row in rows:
        cells = [
            f"{kind['exact']:.3f}, {kind['wider']:.3f} ({kind['num'] / row['forecasts'][0]['num']:.0%})"
            for kind in row["forecasts"]
        ]
        print(
            f"| {row['capacity_share']:.0%} | {row['text']} | " + " | ".join(cells) + " | "
            f"{row['wasted_bytes'] / 1024:.0f} |"
        )


def print_policies(runs: Sequence[Mapping[str, Any]]) -> None:
    print("\n| policy | predictor | in memory | hits | of Belady's | KiB read a token | in vain |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for run in runs:
        print(
            f"| {run['policy']} | {run['predictor']} | {run['capacity_share']:.0%} "
            f"| {run['hit_share']:.1%} | {run['share_of_belady']:.1%} | {run['bytes_read'] / 1024:.0f} "
            f"| {run['wasted_bytes'] / 1024:.0f} |"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--fit", type=Path, nargs="+", required=True)
    parser.add_argument("--text", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--out", "-o", type=Path)
    args = parser.parse_args()
    texts = {name: Path(path) for name, _, path in (text.partition("=") for text in args.text)}
    with tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as name:
        folder = Path(name)
        store = prepare(args.model, folder, args.fit)
        traces = {n: trace_texts(store, {n: p}, folder / n, TRACE_TOKENS // 3) for n, p in texts.items()}
        recall = measure_predictors(store, traces)
        print_recall(recall)
        rehearsals = measure_rehearsals(store, encode_texts(store, texts, TRACE_TOKENS // 3))
        print_rehearsals(rehearsals)
        policies = measure_policies(store, trace_texts(store, texts, folder / "mixed", TRACE_TOKENS))
        print_policies(policies)
    found = {"recall": recall, "rehearsals": rehearsals, "policies": policies}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
