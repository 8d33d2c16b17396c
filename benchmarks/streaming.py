"""What streaming forecasts and what it finds in the cache, on real text.

    python benchmarks/streaming.py MODEL --fit FILE... --text NAME=FILE... [-o streaming.json]

MODEL is a checkpoint folder; it is converted to 4 bits, traced on the `--fit` texts and fitted. Measured on
the `--text` files, which nothing was fitted on:

* recall of every predictor one layer ahead, per text and layer, forecasting K and 1.5 K experts;
* hits of every eviction policy as a share of Belady's, and what reading ahead adds, by simulation.

Tables on stdout, one JSON object in the file. What it means for speed is measured by ablation.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edgemoe
from edgemoe.calib import Setting, Trace, fit_routing, measure_recall, record_trace, simulate
from edgemoe.convert import convert
from edgemoe.engine.loading import read_dense_weights
from edgemoe.engine.prediction import build_next_use, build_predictor
from edgemoe.experts import FORECAST, POLICIES, NoPredictor, save_fitted
from edgemoe.models import read_spec
from edgemoe.quant import BitPlan
from edgemoe.store import Store, find_device, open_store

SHARES = (0.1, 0.25, 0.375, 0.5)
PREDICTORS = ("table", "gate", "gate-fitted", "hybrid")
FIT_TOKENS, TRACE_TOKENS = 65536, 3072
LAYER_S = 150e-6  # computing of one layer of the reference model on our machine


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
            layers = {
                key: [round(value, 4) for value in getattr(recall, key).tolist()]
                for key in ("exact", "wider")
            }
            found.setdefault(name, {})[text] = {"exact": exact, "wider": wider, "layers": layers}
    return found


def measure_policies(store: Store, trace: Trace) -> list[dict[str, Any]]:
    """Every policy without reading ahead; then the paper's and ours with every predictor."""
    spec = read_spec(store.config)
    next_use = build_next_use(spec, store, FORECAST)
    setting = Setting(trace, trace.num_tokens, find_device("nvme"), LAYER_S, next_use)
    runs = [
        simulate(setting, share, policy, NoPredictor(), "none")
        for share in SHARES
        for policy in ("belady", *POLICIES)
    ]
    weights = read_dense_weights(spec, store)
    for share in SHARES:
        for policy in ("edgemoe", FORECAST):
            for name in PREDICTORS:
                predictor = build_predictor(spec, weights, store, name)
                runs.append(simulate(setting, share, policy, predictor, name))
    return [run.to_json() for run in runs]


def print_recall(found: Mapping[str, Any]) -> None:
    texts = list(next(iter(found.values())))
    print("\n| predictor | " + " | ".join(texts) + " |\n|---|" + "---:|" * len(texts))
    for name, by_text in found.items():
        cells = [f"{by_text[t]['exact']:.3f}, {by_text[t]['wider']:.3f}" for t in texts]
        print(f"| {name} | " + " | ".join(cells) + " |")


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
        policies = measure_policies(store, trace_texts(store, texts, folder / "mixed", TRACE_TOKENS))
        print_policies(policies)
    if args.out:
        args.out.write_text(json.dumps({"recall": recall, "policies": policies}, indent=1) + "\n")


if __name__ == "__main__":
    main()
