"""Bytes against quality: uniform widths, the paper's plans, and plans by knapsack.

    edgemoe profile MODEL --text FILE... --method exact -o PROFILE
    python benchmarks/widths.py MODEL PROFILE --text FILE... --test FILE... -o docs/widths.json

Plans are made from a profile and, where they meet a tolerance, measured on those windows of the `--text`
files that it has not seen; all are then measured on the `--test` files, which nothing was chosen on: rise of
perplexity over the bf16 checkpoint, in all and by file, with its 95 % interval (bootstrap over pieces of 128
tokens), divergence, and bytes of all experts. Uniform widths are there rounded for the profile's text and, as
"plain", without it; "scalar" are plans by knapsack over q2 to q8 alone; with "long rows" formats count by the
bits that they take with rows of 2048, where this model's padding is nothing. Nothing here is timed. Rows that
the output has are kept: interrupted, the same command goes on. `--picture FILE` draws plans for long rows and
what widths_llamacpp.py has measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.calib.text import windows_of
from edgemoe.calib.widths import WIDTHS, Profile, ProfileOptions, Quality, compare
from edgemoe.calib.widths.calibration import read_facts
from edgemoe.calib.widths.ladder import Widths
from edgemoe.calib.widths.planning import Choice, knapsack
from edgemoe.calib.widths.quality import States
from edgemoe.calib.widths.search import METHODS, Goal, PlanSearch
from edgemoe.calib.widths.sensitivity import output_errors, predicted_divergence
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import PlanError
from edgemoe.native import bits_per_weight
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store

TOLERANCES = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.10)
LONG_ROW = 2048
LONG_ROW_BITS = (2.25, 2.5, 2.75, 3.0, 3.25, 3.5)
BITS = (2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0)


@contextmanager
def quiet(description: str, unit: str) -> Iterator[Any]:
    print(description, file=sys.stderr)
    yield lambda done, total: None


def read_windows(paths: Sequence[Path], num_tokens: int, store: Path, length: int) -> list[list[int]]:
    """Windows of the beginnings of files, so many tokens in all, by the tokenizer of a store."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    return windows_of(store, texts, num_tokens, length)


class Rows:
    """The rows of the output file, each measured once."""

    def __init__(self, profile: Profile, tests: dict[str, list[list[int]]], out: Path) -> None:
        self._profile, self.tests, self._out = profile, tests, out
        self._rows: dict[str, dict[str, Any]] = {}
        if out.exists():
            self._rows = {row["plan"]: row for row in json.loads(out.read_text())}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    @property
    def all(self) -> list[dict[str, Any]]:
        """In the order of measuring."""
        return list(self._rows.values())

    def add(self, name: str, choose: Callable[[], Choice[ExpertFormats]]) -> None:
        """Choose and measure, unless the row is there; a goal that nothing reaches makes no row."""
        if name in self._rows:
            return
        try:
            choice = choose()
        except PlanError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return
        whole, by_file = self._measure(choice.widths)
        ladder = self._profile.ladder
        num_weights = sum(ladder.spec.num_expert_weights(layer) for layer, _ in ladder.keys)
        self.enter(name, choice.num_bytes, 8 * choice.num_bytes / num_weights, whole, by_file)

    def enter(
        self, name: str, num_bytes: int, bits: float, whole: Quality, by_file: dict[str, Quality]
    ) -> None:
        """Keep and print a row."""
        row = {
            "plan": name,
            "expert_bytes": num_bytes,
            "bits_per_weight": bits,
            "increase": whole.increase,
            "interval": whole.interval(),
            "divergence": whole.mean_divergence,
            "accuracy_loss": whole.accuracy_loss,
            "by_file": {file: [quality.increase, *quality.interval()] for file, quality in by_file.items()},
        }
        self._rows[name] = row
        self._out.write_text(json.dumps(self.all, indent=1))
        low, high = row["interval"]
        print(
            f"| {name} | {bits:.2f} | {num_bytes / 2**20:.2f}"
            f" | {whole.increase:+.2%} ({low:+.2%} to {high:+.2%}) | {whole.mean_divergence:.5f} | "
            + ", ".join(f"{file} {quality.increase:+.2%}" for file, quality in by_file.items())
            + " |",
            flush=True,
        )

    def plain(self, model: Path, width: str, states: States) -> None:
        """A uniform width whose weights were rounded one by one."""
        name, profile = f"plain {width}", self._profile
        if name in self._rows:
            return
        with tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as folder:
            convert(model, Path(folder) / "store", BitPlan.uniform(width, profile.options.dense_format))
            options = LoadOptions(None, profile.options.window, predictor="none", verify="never")
            engine = load_engine(open_store(Path(folder) / "store"), options)
            by_file = {f: compare(profile.reference, engine, w, states) for f, w in self.tests.items()}
            engine.experts.close()
        widths = dict.fromkeys(profile.ladder.keys, ExpertFormats.uniform(width))
        num_bytes = sum(profile.ladder.num_bytes[key][option] for key, option in widths.items())
        self.enter(name, num_bytes, profile.ladder.bits_per_weight(widths), joined(by_file), by_file)

    def _measure(self, widths: Widths) -> tuple[Quality, dict[str, Quality]]:
        by_file = {file: self._profile.measure(widths, windows) for file, windows in self.tests.items()}
        return joined(by_file), by_file


def joined(parts: dict[str, Quality]) -> Quality:
    names = ("num_tokens", "reference_nats", "nats", "divergence", "reference_hits", "hits")
    return Quality(*(np.concatenate([getattr(part, name) for part in parts.values()]) for name in names))


def uniform(profile: Profile, width: str) -> Choice[ExpertFormats]:
    widths = dict.fromkeys(profile.ladder.keys, ExpertFormats.uniform(width))
    return Choice(widths, sum(profile.ladder.num_bytes[k][o] for k, o in widths.items()), None)  # type: ignore[arg-type]


def knapsack_of(
    profile: Profile, widths: Sequence[str], bits: float, has_long_rows: bool = False
) -> Choice[ExpertFormats]:
    """A plan over some of the widths alone, for so many bits per weight.

    Sizes are those of this model's records, or in proportion what formats take with rows of 2048, where
    bases and padding are next to nothing.
    """
    profile.find_fast()
    ladder = profile.ladder
    costs = predicted_divergence(output_errors(ladder.keys, profile.found), profile.found)
    sizes = {
        key: {o: _long_rows_bytes(profile, key, o) if has_long_rows else size for o, size in row.items()}
        for key, row in ladder.num_bytes.items()
    }
    costs, sizes = (
        {key: {o: row[o] for o in row if {*o.to_json()} <= {*widths}} for key, row in table.items()}
        for table in (costs, sizes)
    )
    num_weights = sum(ladder.spec.num_expert_weights(layer) for layer, _ in ladder.keys)
    chosen = knapsack(costs, sizes, int(bits * num_weights / 8))
    return Choice(chosen, sum(sizes[k][o] for k, o in chosen.items()), None)  # type: ignore[arg-type]


def _long_rows_bytes(profile: Profile, key: tuple[int, int], formats: ExpertFormats) -> int:
    names = formats.of(profile.ladder.spec.moe(key[0]).expert.projections).to_json()
    mean_bits = sum(bits_per_weight(name, LONG_ROW) for name in names) / len(names)
    return int(mean_bits * profile.ladder.spec.num_expert_weights(key[0]) / 8)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind in ("long rows, scalar", "long rows, all", "llama.cpp IQ", "llama.cpp Q"):
        chosen = (r for r in rows if r["plan"].startswith(kind) and "within" not in r["plan"])
        points = sorted((r["bits_per_weight"], r["divergence"]) for r in chosen if r["bits_per_weight"] < 6)
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=kind)
    axes.set(
        xlabel="bits per weight of the experts", ylabel="divergence from bf16, nats per token", yscale="log"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def measure_all(
    model: Path, rows: Rows, profile: Profile, search: PlanSearch, args: argparse.Namespace
) -> None:
    states: States = {}
    for width in WIDTHS:
        rows.plain(model, width, states)
        rows.add(f"uniform {width}", lambda width=width: uniform(profile, width))
    scalar = [width for width in WIDTHS if width.startswith("q")]
    for bits in LONG_ROW_BITS:
        for kind, widths in (("long rows, scalar", scalar), ("long rows, all", WIDTHS)):
            name = f"{kind} {bits} bits"
            rows.add(name, lambda bits=bits, widths=widths: knapsack_of(profile, widths, bits, True))
    for bits in args.bits:
        rows.add(f"scalar {bits} bits", lambda bits=bits: knapsack_of(profile, scalar, bits))
    for method in args.methods:
        for bits in args.bits:
            goal = Goal(bits_per_weight=bits)
            rows.add(f"{method} {bits} bits", lambda goal=goal, method=method: search.choose(goal, method))
        for tolerance in args.tolerances:
            goal = Goal(tolerance=tolerance)
            name = f"{method} within {tolerance:.2%}"
            rows.add(name, lambda goal=goal, method=method: search.choose(goal, method))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=49152, help="of all --text files together")
    parser.add_argument("--test-tokens", type=int, default=18432)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--bits", type=float, nargs="*", default=BITS, help="per weight, one plan for each")
    parser.add_argument("--tolerances", type=float, nargs="*", default=TOLERANCES, help="0.02 is 2 %%")
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    facts = read_facts(args.profile)
    options = ProfileOptions(facts["window"], facts["dense"])
    with Profile.make(args.model, args.profile, lambda _: facts["windows"], quiet, options) as profile:
        bf16, length = args.profile / "bf16", options.window
        search = PlanSearch(profile, read_windows(args.text, args.tokens, bf16, length))
        share = args.test_tokens // len(args.test)
        tests = {path.name.split(".")[0]: read_windows([path], share, bf16, length) for path in args.test}
        rows = Rows(profile, tests, args.out)
        measure_all(args.model, rows, profile, search, args)
        if args.picture:
            draw(rows.all, args.picture)


if __name__ == "__main__":
    main()
