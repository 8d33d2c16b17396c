"""Bytes against quality: uniform widths, the paper's plans, and plans by knapsack.

    python benchmarks/widths.py MODEL --text FILE... --test FILE... [-o docs/widths.json] [--picture FILE]

Plans are made on the `--text` files and measured on the `--test` files, which nothing was chosen on: rise
of perplexity over the bf16 checkpoint with its 95 % interval (bootstrap over windows of 512 tokens),
divergence, and bytes of all experts. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemoe.calib import WIDTHS
from edgemoe.calib.planning import Choice
from edgemoe.calib.search import METHODS, Goal, PlanSearch
from edgemoe.engine.tokenizer import Tokenizer
from edgemoe.errors import PlanError

TOLERANCES = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.10)
BITS = (2.75, 3.0, 3.25, 3.5, 3.75, 4.0)
WINDOW = 512


@contextmanager
def quiet(description: str, unit: str) -> Iterator[Any]:
    print(description, file=sys.stderr)
    yield lambda done, total: None


def read_tokens(folder: Path, path: Path, num_tokens: int) -> list[int]:
    tokenizer = Tokenizer(folder, json.loads((folder / "config.json").read_text()))
    with path.open(encoding="utf-8") as file:
        return tokenizer.encode(file.read(32 * num_tokens))[:num_tokens]


def row(search: PlanSearch, name: str, choice: Choice, windows: Sequence[Sequence[int]]) -> dict[str, Any]:
    quality = search.measure(choice.widths, windows)
    low, high = quality.interval()
    record = {
        "plan": name,
        "expert_bytes": choice.num_bytes,
        "bits_per_weight": search.ladder.bits_per_weight(choice.widths),
        "increase": quality.increase,
        "interval": [low, high],
        "divergence": quality.mean_divergence,
    }
    print(
        f"| {name} | {record['bits_per_weight']:.2f} | {choice.num_bytes / 2**20:.2f} "
        f"| {quality.increase:+.2%} ({low:+.2%} to {high:+.2%}) | {quality.mean_divergence:.5f} |",
        flush=True,
    )
    return record


def uniform(search: PlanSearch, name: str) -> Choice:
    widths = dict.fromkeys(search.ladder.keys, name)
    sizes = search.ladder.num_bytes
    return Choice(widths, sum(sizes[key][name] for key in widths), search.measure(widths))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind in ("uniform", *METHODS):
        points = sorted(
            (r["expert_bytes"] / 2**20, r["divergence"]) for r in rows if r["plan"].startswith(kind)
        )
        axes.plot(*zip(*points, strict=True), "o-", label=kind)
    axes.set(xlabel="experts, MiB", ylabel="divergence from bf16, nats per token", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=24576, help="of all texts together")
    parser.add_argument("--test-tokens", type=int, default=24576)
    parser.add_argument("--out", "-o", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()

    def encode(folder: Path) -> list[int]:
        share = args.tokens // len(args.text)
        return [i for path in args.text for i in read_tokens(folder, path, share)]

    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as name,
        PlanSearch(args.model, Path(name) / "work", encode, quiet, window=WINDOW) as search,
    ):
        share = args.test_tokens // len(args.test)
        folder = Path(name) / "work" / "bf16"
        tokens = [read_tokens(folder, path, share) for path in args.test]
        windows = [ids[i : i + WINDOW] for ids in tokens for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
        print("| plan | bits per weight | MiB | increase of perplexity | divergence |")
        print("|---|---:|---:|---|---:|")
        for width in WIDTHS:
            rows.append(row(search, f"uniform {width}", uniform(search, width), windows))
        for method in METHODS:
            for bits in BITS:
                choice = search.choose(Goal(bits_per_weight=bits), method)
                rows.append(row(search, f"{method} {bits} bits", choice, windows))
            for tolerance in TOLERANCES:
                try:
                    choice = search.choose(Goal(tolerance=tolerance), method)
                except PlanError as error:
                    print(f"{method} {tolerance:.2%}: {error}", file=sys.stderr)
                    continue
                rows.append(row(search, f"{method} within {tolerance:.2%}", choice, windows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))
    if args.picture:
        draw(rows, args.picture)


if __name__ == "__main__":
    main()
