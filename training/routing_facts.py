"""How a model routes the text of each domain: load, specialisation, paths, reuse.

    python training/routing_facts.py --data DIR --model DIR [--picture FILE] [--json]

Letters: T tokens, S layers, E experts, K chosen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from evaluate import full_precision_store, held_out_tokens
from matplotlib.figure import Figure

import edgemoe
from edgemoe.calib.trace import record_trace

TOP_PATHS = 0.2
SEED = 1  # of the shuffle
ALL = "all"  # the domains together


@dataclass(frozen=True)
class RoutingFacts:
    """Of one domain. ``load`` (S, E) is the share of the layer's choices that fell on each expert.

    The share of tokens on the most frequent paths grows with the number of tokens measured and with uneven
    load alone; `shuffled` tells how much: the same choices, each layer's dealt to the tokens anew.
    """

    load: list[list[float]]
    entropy: float  # of the load, mean over layers, relative to that of an even load
    most_used: float  # share of its layer's choices that the busiest expert took, as a multiple of even
    least_used: float
    top_path_share: float  # of tokens on the most frequent fifth of the paths that occurred
    top_pair_share: float  # the same, for paths through two adjacent layers
    shuffled_path_share: float  # of paths whose layers know nothing of each other
    shuffled_pair_share: float
    reuse: float  # share of a token's experts that the token before had chosen as well
    entropy_by_layer: list[float]
    reuse_by_layer: list[float]


def routing(store: Path, texts: Mapping[str, list[int]]) -> tuple[dict[str, np.ndarray], int]:
    """Experts (T, S, K) that every domain's tokens choose, and E."""
    chosen = {}
    with edgemoe.load(store, context=512, predictor="none") as model, tempfile.TemporaryDirectory() as folder:
        for name, tokens in texts.items():
            trace = record_trace(model.engine, {name: tokens}, Path(folder) / name)
            chosen[name] = np.array(trace.experts)
            num_experts = trace.num_experts[0]
    return chosen, num_experts


def facts_of(experts: np.ndarray, num_experts: int) -> RoutingFacts:
    """The facts of one domain's choices (T, S, K); the first of the K is the one of most weight."""
    counts = np.stack([np.bincount(layer.ravel(), minlength=num_experts) for layer in experts.swapaxes(0, 1)])
    load = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(load, out=np.zeros_like(load), where=load > 0)
    reused = (experts[1:, :, :, None] == experts[:-1, :, None, :]).any(axis=3)
    strongest = experts[:, :, 0]
    shuffled = np.random.default_rng(SEED).permuted(strongest, axis=0)
    entropy = -(load * logs).sum(axis=1) / np.log(num_experts)
    return RoutingFacts(
        load=load.round(5).tolist(),
        entropy=float(entropy.mean()),
        most_used=float(load.max(axis=1).mean() * num_experts),
        least_used=float(load.min(axis=1).mean() * num_experts),
        top_path_share=_top_share(strongest),
        top_pair_share=_top_share(_pairs(strongest)),
        shuffled_path_share=_top_share(shuffled),
        shuffled_pair_share=_top_share(_pairs(shuffled)),
        reuse=float(reused.mean()),
        entropy_by_layer=entropy.round(4).tolist(),
        reuse_by_layer=reused.mean(axis=(0, 2)).round(4).tolist(),
    )


def _pairs(strongest: np.ndarray) -> np.ndarray:
    """The experts of every two adjacent layers, marked by the layer: (T * (S - 1), 3)."""
    steps = range(strongest.shape[1] - 1)
    return np.concatenate([np.insert(strongest[:, layer : layer + 2], 0, layer, axis=1) for layer in steps])


def _top_share(paths: np.ndarray) -> float:
    counts = sorted(Counter(map(tuple, paths.tolist())).values(), reverse=True)
    return sum(counts[: max(1, round(TOP_PATHS * len(counts)))]) / sum(counts)


def distances(facts: Mapping[str, RoutingFacts]) -> dict[str, list[float]]:
    """How unlike two domains load the experts of each layer: total variation; 0 alike, 1 disjoint."""
    loads = {name: np.array(fact.load) for name, fact in facts.items() if name != ALL}
    return {
        f"{a}, {b}": (np.abs(loads[a] - loads[b]).sum(axis=1) / 2).round(4).tolist()
        for a, b in combinations(loads, 2)
    }


def extremes(facts: Mapping[str, RoutingFacts]) -> tuple[str, str]:
    """The two domains that load the experts most alike, and the two that do so least: mean over layers."""
    means = sorted((float(np.mean(layers)), pair) for pair, layers in distances(facts).items())
    if not means:
        return "none", "none"
    return tuple(f"{pair} ({mean:.2f})" for mean, pair in (means[0], means[-1]))


def table(facts: Mapping[str, RoutingFacts]) -> str:
    """The facts in Markdown."""
    rows = [
        "| domain | evenness | busiest | idlest | top fifth of pairs (shuffled) "
        "| top fifth of paths (shuffled) | reused |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, fact in facts.items():
        rows.append(
            f"| {name} | {fact.entropy:.3f} | {fact.most_used:.1f}x | {fact.least_used:.2f}x "
            f"| {fact.top_pair_share:.0%} ({fact.shuffled_pair_share:.0%}) "
            f"| {fact.top_path_share:.0%} ({fact.shuffled_path_share:.0%}) | {fact.reuse:.0%} |"
        )
    return "\n".join(rows)


def draw(facts: Mapping[str, RoutingFacts], path: Path) -> None:
    """One map of layer by expert for each domain."""
    figure = Figure(figsize=(14, 1.3 * len(facts)), layout="constrained")
    axes = figure.subplots(len(facts), 1, sharex=True)
    for axis, (name, fact) in zip(np.atleast_1d(axes), facts.items(), strict=True):
        load = np.array(fact.load)
        image = axis.imshow(load * load.shape[1], aspect="auto", cmap="viridis", vmin=0, vmax=4)
        axis.set_ylabel(name, rotation=0, ha="right")
    axis.set_xlabel("expert; one line per layer")
    figure.colorbar(image, ax=axes, label="load, of even")
    figure.savefig(path, dpi=110)


def measure(store: Path, texts: Mapping[str, list[int]]) -> dict[str, RoutingFacts]:
    """The facts of every domain and of all together."""
    chosen, num_experts = routing(store, texts)
    chosen[ALL] = np.concatenate(list(chosen.values()))
    return {name: facts_of(experts, num_experts) for name, experts in chosen.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=8192, help="of each domain")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = held_out_tokens(args.data, args.model, args.tokens)
    with full_precision_store(args.model) as store:
        facts = measure(store, texts)
    if args.picture:
        draw(facts, args.picture)
    if args.json:
        print(
            json.dumps({"domains": {k: asdict(v) for k, v in facts.items()}, "distances": distances(facts)})
        )
        return
    print(table(facts))
    alike, unlike = extremes(facts)
    print(f"\nmost alike: {alike}; least: {unlike}")


if __name__ == "__main__":
    main()
