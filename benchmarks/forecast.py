"""How fast `edgemoe get` says that stores will run, beside how fast they do, in turns.

    python benchmarks/forecast.py STORE... [--share 1 --share 0.5] [--turns 20] [--tokens 16]

In each turn products are timed, some tokens are written, and products are timed again; storage is timed
before and after all turns. So what else a machine does meets both alike. Prints medians, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edgemoe.bench import measure_products, measure_storage, mode_options
from edgemoe.engine.loading import Engine, load_engine
from edgemoe.engine.speed import SpeedForecast, forecast_speed
from edgemoe.store import Store, open_store

# The cache settles within these tokens.
WARM_TOKENS = 64
PROMPT = (0,)


@dataclass(frozen=True)
class Row:
    """A store with a share of its experts in memory; speeds are medians."""

    store: str
    share: float
    product_bytes_per_s: float
    storage_bytes_per_s: float
    tokens_per_s: float
    read_bytes: float
    forecast: SpeedForecast

    @property
    def ratio(self) -> float:
        """Of the measured speed, what was forecast."""
        return self.forecast.tokens_per_s / self.tokens_per_s

    def __str__(self) -> str:
        return (
            f"| {self.store}, {self.share:.0%} | {self.product_bytes_per_s / 1e9:.1f},"
            f" {self.storage_bytes_per_s / 1e9:.2f} | {self.read_bytes / 1e6:.1f}"
            f" ({self.forecast.read_bytes / 1e6:.1f}) | {self.tokens_per_s:.1f} |"
            f" {self.forecast.tokens_per_s:.1f} | {self.ratio:.2f} |"
        )


def measure(store: Store, share: float, num_turns: int, num_tokens: int) -> Row:
    """Take turns."""
    total = sum(entry.num_bytes for entry in store.manifest.experts.values())
    engine = load_engine(store, mode_options("full", store, None, int(share * total), None))
    try:
        if share == 1:
            engine.experts.preload()
        disk = [measure_storage(Path.cwd()).bytes_per_s]
        tokens = _written(engine)
        _write(tokens, WARM_TOKENS)
        before = engine.experts.counts.bytes_read
        products, rates = [], []
        format = next(iter(store.manifest.experts.values())).formats.up
        for _ in range(num_turns):
            around = measure_products(format)
            rates.append(_write(tokens, num_tokens))
            products.append((around + measure_products(format)) / 2)
        read_bytes = (engine.experts.counts.bytes_read - before) / (num_turns * num_tokens)
        disk.append(measure_storage(Path.cwd()).bytes_per_s)
        given = statistics.median(products), statistics.mean(disk)
        forecast = forecast_speed(engine.spec, store.manifest, share, *given)
        return Row(store.name, share, *given, statistics.median(rates), read_bytes, forecast)
    finally:
        engine.close()


def _written(engine: Engine) -> Iterator[int]:
    """Tokens of one long answer, each the likeliest."""
    logits = engine.session.prefill(list(PROMPT))
    while True:
        token = int(logits.argmax())
        yield token
        logits = engine.session.step(token)


def _write(tokens: Iterator[int], count: int) -> float:
    """Tokens per second."""
    began_s = time.perf_counter()
    for _ in range(count):
        next(tokens)
    return count / (time.perf_counter() - began_s)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    parser.add_argument("--share", type=float, action="append", help="of the experts in memory")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=16, help="of a turn")
    given = parser.parse_args()
    print("| store, in memory | products, disk GB/s | MB read (forecast) | tokens/s | forecast | ratio |")
    print("|---|---|---|---:|---:|---:|")
    rows = []
    for path in given.stores:
        for share in given.share or (1.0, 0.5, 0.25):
            rows.append(measure(open_store(path), share, given.turns, given.tokens))
            print(rows[-1], flush=True)
    print(json.dumps([{**asdict(row), "ratio": row.ratio} for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
