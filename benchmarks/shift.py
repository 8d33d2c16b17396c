"""What becomes of caching and forecasts when the text is no longer what they were fitted to.

python benchmarks/shift.py MODEL --fit NAME=FILE --text NAME=FILE... [-o shift.json] [--picture shift.png]

MODEL is a checkpoint folder; it is converted to 4 bits and fitted to the beginning of the `--fit` text.
Each stream is a piece of that text that was not fitted on, then as much of another text. After the
change:

* recall of the predictor one layer ahead: as fitted; with a correction learnt while running (a bias for
  each expert, moved by every forecast that was wrong); and fitted to that text itself, the most to hope
  for;
* hits and speed by simulation with a quarter of the experts in memory on an NVMe drive: with counts of
  use that never forget (adaptation off); with counts that halve in 32 tokens (on); with the default
  policy, which also asks what was fitted; with the correction as well; and with the default policy fitted
  to that text;
* tokens until hits, over 32 tokens, are as good as they will be (the mean of the second half);
* hits of the engine itself, token by token, by the default policy with nothing read ahead, beside a
  simulation of the same.

Nothing here depends on the clock: times are those of the simulation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from streaming import LAYER_S, encode_texts

import edgemoe
from edgemoe.calib.routing import Setting, SimulatedRun, fit_routing, measure_recall, simulate
from edgemoe.calib.trace import Trace, record_trace
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.engine.prediction import build_next_use, build_predictor
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.experts import FORECAST, HALF_LIFE_TOKENS, NoPredictor, Predictor, save_fitted
from edgemoe.models import read_spec
from edgemoe.native import FloatArray, IntArray
from edgemoe.quant import BitPlan
from edgemoe.store import Store, find_device, open_store

SHARE = 0.25
FIT_TOKENS = 16384
NEVER_TOKENS = 1e9  # a half-life in which nothing is forgotten
SMOOTH_TOKENS = 32
# Of the spread of a forecast's scores, by which the bias of an expert moves when it was forecast wrongly.
RATE = 0.05


class Following:
    """A predictor's scores with a bias for each expert that is learnt while it runs."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._bias: dict[int, FloatArray] = {}
        self._due: dict[int, FloatArray] = {}

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[tuple[int, FloatArray]]:
        """See Predictor."""
        self._learn(position, expert_ids[-1])
        found = []
        for target, scores in self._predictor.forecast(position, x, expert_ids, weights, lookahead):
            corrected = scores + self._bias.get(target, np.float32(0))
            self._due[target] = corrected[-1]
            found.append((target, corrected))
        return found

    def _learn(self, position: int, chosen: IntArray) -> None:
        scores = self._due.pop(position, None)
        if scores is None:
            return
        change = np.zeros_like(scores)
        change[np.argsort(-scores)[: len(chosen)]] -= 1
        change[chosen] += 1
        bias = self._bias.setdefault(position, np.zeros_like(scores))
        bias += np.float32(RATE * scores.std()) * change


def fit(store: Store, trace: Trace) -> Store:
    spec = read_spec(store.config)
    fitted, _ = fit_routing(trace, spec, read_dense_weights(spec, store))
    return save_fitted(store, fitted)


def predictor_of(store: Store) -> Predictor:
    spec = read_spec(store.config)
    return build_predictor(spec, read_dense_weights(spec, store), store, "hybrid")


def stream_of(store: Store, ids: Sequence[Sequence[int]], folder: Path) -> Trace:
    """A trace of texts one after the other."""
    with edgemoe.load(store.path, context=max(map(len, ids)), predictor="none") as model:
        return record_trace(model.engine, {str(i): part for i, part in enumerate(ids)}, folder)


def replays(stream: Trace, general: Store, own: Store) -> dict[str, SimulatedRun]:
    """The stream with adaptation off and on."""

    def run(policy: str, store: Store, half_life: float, predictor: Predictor, name: str) -> SimulatedRun:
        next_use = build_next_use(read_spec(store.config), store, FORECAST)
        setting = Setting(
            stream, stream.num_tokens, find_device("nvme"), LAYER_S, next_use, half_life_tokens=half_life
        )
        return simulate(setting, SHARE, policy, predictor, name)

    return {
        "never forgets": run("edgemoe", general, NEVER_TOKENS, NoPredictor(), "none"),
        "follows": run("edgemoe", general, HALF_LIFE_TOKENS, NoPredictor(), "none"),
        "nothing ahead": run(FORECAST, general, HALF_LIFE_TOKENS, NoPredictor(), "none"),
        "default": run(FORECAST, general, HALF_LIFE_TOKENS, predictor_of(general), "hybrid"),
        "default, corrected": run(
            FORECAST, general, HALF_LIFE_TOKENS, Following(predictor_of(general)), "corrected"
        ),
        "fitted to it": run(FORECAST, own, HALF_LIFE_TOKENS, predictor_of(own), "hybrid"),
    }


def engine_hits(store: Store, ids: Sequence[Sequence[int]]) -> list[float]:
    """Shares of uses that the engine itself finds in memory, token by token."""
    total = sum(entry.num_bytes for entry in store.manifest.experts.values())
    tokens = [token for part in ids for token in part]
    options = LoadOptions(context=len(tokens), cache_bytes=int(SHARE * total), predictor="none")
    engine = load_engine(store, options)
    shares = []
    try:
        engine.session.prefill(tokens[:1])
        for token in tokens[1:]:
            before = engine.experts.counts
            engine.session.step(token)
            used = engine.experts.counts - before
            shares.append(used.hits / (used.hits + used.misses))
    finally:
        engine.experts.close()
    return shares


def recovery(shares: Sequence[float]) -> int:
    """Tokens until a running mean reaches the mean of the second half."""
    goal = float(np.mean(shares[len(shares) // 2 :]))
    running = np.convolve(shares, np.ones(SMOOTH_TOKENS) / SMOOTH_TOKENS, "valid")
    return SMOOTH_TOKENS + int(np.argmax(running >= goal))


def measure(
    model: Path, folder: Path, fitted: tuple[str, Path], texts: Mapping[str, Path], num_tokens: int
) -> list[dict[str, Any]]:
    convert(model, folder / "store", BitPlan.uniform("q4", "q8"))
    plain = open_store(folder / "store")
    everything = {fitted[0]: fitted[1], **texts}
    ids = encode_texts(plain, everything, FIT_TOKENS + 2 * num_tokens)
    stores = {}
    for name in everything:
        part = shutil.copytree(plain.path, folder / f"fitted-{name}")
        with edgemoe.load(part, context=512, predictor="none") as loaded:
            trace = record_trace(loaded.engine, {name: ids[name][:FIT_TOKENS]}, folder / f"trace-{name}")
        stores[name] = fit(open_store(part), trace)
    rows = []
    for name in everything:
        first = ids[fitted[0]][FIT_TOKENS : FIT_TOKENS + num_tokens]
        second = ids[name][FIT_TOKENS + num_tokens :][:num_tokens]
        rows.append(measure_text(name, stores[fitted[0]], stores[name], [first, second], folder))
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "by_token"}), flush=True)
    return rows


def measure_text(
    name: str, general: Store, own: Store, ids: Sequence[Sequence[int]], folder: Path
) -> dict[str, Any]:
    stream = stream_of(general, ids, folder / f"stream-{name}")
    start = len(ids[0])
    predictors = {
        "as fitted": predictor_of(general),
        "corrected": Following(predictor_of(general)),
        "fitted to it": predictor_of(own),
    }
    runs = replays(stream, general, own)
    uses = stream.experts.shape[1] * stream.top_k
    by_token = {way: [hits / uses for hits in run.hits_by_token] for way, run in runs.items()}
    by_token["engine"] = engine_hits(general, ids)
    return {
        "text": name,
        "recall": {way: measure_recall(found, stream, start).mean()[0] for way, found in predictors.items()},
        "hits": {way: float(np.mean(shares[start:])) for way, shares in by_token.items()},
        "speed": {way: run.speed_share for way, run in runs.items()},
        "recovery_tokens": {way: recovery(shares[start:]) for way, shares in by_token.items()},
        "by_token": by_token,
    }


def print_tables(rows: Sequence[Mapping[str, Any]]) -> None:
    for what, form in (("recall", ".3f"), ("hits", ".1%"), ("speed", ".1%"), ("recovery_tokens", "d")):
        ways = list(rows[0][what])
        print(f"\n| {what} | " + " | ".join(ways) + " |\n|---|" + "---:|" * len(ways))
        for row in rows:
            print(f"| {row['text']} | " + " | ".join(f"{row[what][way]:{form}}" for way in ways) + " |")


def draw(rows: Sequence[Mapping[str, Any]], start: int, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    shown = ("never forgets", "follows", "default", "engine")
    for axes, row in zip(figure.subplots(1, len(rows), sharey=True), rows, strict=True):
        for way in shown:
            kernel = np.ones(SMOOTH_TOKENS) / SMOOTH_TOKENS
            shares = np.convolve(row["by_token"][way], kernel, "valid")
            axes.plot(np.arange(len(shares)) + SMOOTH_TOKENS - start, 100 * shares, lw=1, label=way)
        axes.axvline(0, color="grey", lw=0.8)
        axes.set(title=f"then {row['text']}", xlabel="tokens since the change", xlim=(-start // 2, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("experts found in memory, %")
    figure.axes[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--fit", required=True, metavar="NAME=FILE")
    parser.add_argument("--text", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--tokens", type=int, default=512, help="of each half of a stream")
    parser.add_argument("--out", "-o", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    name, _, file = args.fit.partition("=")
    texts = {name: Path(path) for name, _, path in (text.partition("=") for text in args.text)}
    with tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as folder:
        rows = measure(args.model, Path(folder), (name, Path(file)), texts, args.tokens)
    print_tables(rows)
    if args.picture:
        draw(rows, args.tokens, args.picture)
    if args.out:
        kept = [{k: v for k, v in row.items() if k != "by_token"} for row in rows]
        args.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
