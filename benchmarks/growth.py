"""What becomes of a model as it grows: from 16 to 512 experts a layer, and from 1 to 100 GB of experts.

    python benchmarks/growth.py [--memory-gbps 17] [--cache 8GiB] [-o growth.json]

*By simulation*: made-up routing (below) goes through the engine's own residency and eviction. A token costs

    compute     bytes of the chosen experts, of routers and of attention over the speed of memory
    fixed       what the engine does in a layer whatever its size, and bookkeeping as measured here
    bandwidth   bytes that missed over the drive's bandwidth
    latency     the drive's, once for each layer that missed

Nothing is read ahead, so they add up; the largest is what bounds the token. Hits and bytes do not depend
on the machine; bookkeeping is timed, the shortest of many tokens.

*Really*: tiny stores with as many experts: bytes of the manifest, what loading takes of Python's heap,
and the shortest of three times to load.

Routing: scores of experts are sums of a part that all tokens share, one that a topic's tokens share and one
of a token's own, with the shares that make_model.py has from what is published of OLMoE.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from random_checkpoint import config, write_checkpoint

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine.prediction import LOOKAHEAD
from edgemoe.experts import (
    DEFAULT_POLICY,
    Catalog,
    Residency,
    UseStatistics,
    make_policy,
    num_gate_columns,
)
from edgemoe.quant import BitPlan
from edgemoe.store import find_device
from edgemoe.units import parse_size

# Experts of a layer and those chosen: as Phi-3.5-MoE, gpt-oss-20b, OLMoE, Qwen3, DeepSeek-V3 and Qwen3-Next.
SHAPES = ((16, 2), (32, 4), (64, 8), (128, 8), (256, 8), (512, 10))
TOTALS = (1e9, 4e9, 16e9, 100e9)
LAYERS, WIDTH = 32, 2048
ATTENTION_BYTES = 4 * WIDTH * WIDTH * 1.0625  # of a layer, at 8 bits with scales
FIXED_S = 100e-6  # of a layer: calls, norms, sums; docs/benchmarks.md, tiny models with all in memory
NUM_TOKENS, WARM_TOKENS = 384, 128
NUM_TOPICS, TOPIC_STAYS = 16, 0.9
SHARED, TOPIC = 0.40, 0.45
DRIVE = find_device("nvme")


def route(num_experts: int, top_k: int, seed: int = 0) -> NDArray[np.int32]:
    """Experts chosen (T, S, K) by a made-up text."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((LAYERS, num_experts), np.float32)
    topics = rng.standard_normal((NUM_TOPICS, LAYERS, num_experts), np.float32)
    topic, chosen = 0, []
    for _ in range(NUM_TOKENS):
        if rng.random() > TOPIC_STAYS:
            topic = int(rng.integers(NUM_TOPICS))
        own = rng.standard_normal((LAYERS, num_experts), np.float32)
        scores = SHARED * shared + TOPIC * topics[topic] + (1 - SHARED**2 - TOPIC**2) ** 0.5 * own
        chosen.append(np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k])
    return np.array(chosen, np.int32)


def replay(chosen: NDArray[np.int32], num_experts: int, expert_bytes: int, capacity: int) -> dict[str, float]:
    """Hits, layers that missed and bytes per token after warming up; seconds of bookkeeping per layer."""
    catalog = Catalog({(layer, e): expert_bytes for layer in range(LAYERS) for e in range(num_experts)})
    statistics = UseStatistics(catalog)
    residency = Residency(statistics, make_policy(DEFAULT_POLICY), capacity)
    hits, layers_missed, times = 0, 0, []
    for token, rows in enumerate(chosen):
        began = time.perf_counter()
        for position, row in enumerate(rows):
            wanted = statistics.observe(position, row[None])
            missing = residency.missing(wanted)
            residency.pin(wanted)
            for expert in missing:
                if residency.take(expert, True) is None:
                    raise ValueError("the cache is too small for one layer")
                residency.admit(expert)
            residency.unpin(wanted)
            if token >= WARM_TOKENS:
                hits += len(wanted) - len(missing)
                layers_missed += bool(missing)
        times.append((time.perf_counter() - began) / LAYERS)
    measured = NUM_TOKENS - WARM_TOKENS
    uses = measured * LAYERS * chosen.shape[2]
    return {
        "hit_share": hits / uses,
        "layers_missed": layers_missed / measured,
        "bytes_read": (uses - hits) * expert_bytes / measured,
        "bookkeeping_s": min(times[WARM_TOKENS:]),
    }


def cost(num_experts: int, top_k: int, total: float, capacity: int, memory_speed: float) -> dict[str, Any]:
    """One row of the table; seconds per token."""
    print(f"replaying {num_experts} experts, {total / 1e9:.0f} GB", file=sys.stderr)
    expert_bytes = int(total / (LAYERS * num_experts))
    found = replay(route(num_experts, top_k), num_experts, expert_bytes, min(capacity, int(total)))
    read_here = LAYERS * (top_k * expert_bytes + 4 * num_experts * WIDTH + ATTENTION_BYTES)
    parts = {
        "compute": read_here / memory_speed,
        "fixed": LAYERS * (FIXED_S + found["bookkeeping_s"]),
        "bandwidth": found["bytes_read"] / DRIVE.bytes_per_s,
        "latency": found["layers_missed"] * DRIVE.latency_s,
    }
    return {
        "experts": num_experts,
        "top_k": top_k,
        "total_bytes": total,
        "expert_bytes": expert_bytes,
        # Of the fitted predictor: rows for experts of the next layers, columns for those of this one too.
        "forecast_bytes": 2 * LAYERS * LOOKAHEAD * num_experts * num_gate_columns(WIDTH, num_experts),
        **found,
        "parts_s": parts,
        "token_s": sum(parts.values()),
        "bound": max(parts, key=lambda name: parts[name]),
    }


def really(num_experts: int, top_k: int, folder: Path) -> dict[str, Any]:
    """A tiny store with as many experts: what one more expert costs where nothing is computed."""
    print(f"writing and loading a store of {num_experts} experts", file=sys.stderr)
    source, store = folder / f"{num_experts}.source", folder / f"{num_experts}.store"
    write_checkpoint(source, config(4, 128, 64, num_experts, top_k))
    convert(source, store, BitPlan.uniform("q4", "q8"))
    count = 4 * num_experts
    tracemalloc.start()
    with edgemoe.load(store, "1GiB", context=64):
        gc.collect()
        heap = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        with edgemoe.load(store, "1GiB", context=64):
            times.append(time.perf_counter() - began)
    return {
        "experts": num_experts,
        "records": count,
        "manifest_bytes": (store / "edgemoe.json").stat().st_size / count,
        "heap_bytes": heap,
        "load_s": min(times),
    }


def print_tables(rows: Sequence[dict[str, Any]], real: Sequence[dict[str, Any]]) -> None:
    print(
        "| experts, chosen | GB | an expert, MB | hits | MB read a token | MB of forecasts | ms a token"
        " | compute, fixed, bandwidth, latency | bound by |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---|---|")
    for row in rows:
        parts = ", ".join(f"{1000 * value:.1f}" for value in row["parts_s"].values())
        print(
            f"| {row['experts']}, {row['top_k']} | {row['total_bytes'] / 1e9:.0f}"
            f" | {row['expert_bytes'] / 1e6:.2f} | {row['hit_share']:.0%} | {row['bytes_read'] / 1e6:.0f}"
            f" | {row['forecast_bytes'] / 1e6:.0f}"
            f" | {1000 * row['token_s']:.0f} | {parts} | {row['bound']} |"
        )
    print(
        "\n| experts | records | manifest, bytes each | heap when loaded, KiB | load, s |\n|---:|"
        + "---:|" * 4
    )
    for row in real:
        print(
            f"| {row['experts']} | {row['records']} | {row['manifest_bytes']:.0f}"
            f" | {row['heap_bytes'] / 1024:.0f} | {row['load_s']:.3f} |"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory-gbps", type=float, default=17.0, help="speed of memory, GB/s")
    parser.add_argument("--cache", default="8GiB", help="memory for experts")
    parser.add_argument("--out", "-o", type=Path)
    args = parser.parse_args()
    capacity, speed = parse_size(args.cache), 1e9 * args.memory_gbps
    rows = [cost(n, k, total, capacity, speed) for total in TOTALS for n, k in SHAPES]
    with tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as folder:
        real = [really(n, k, Path(folder)) for n, k in SHAPES]
    print_tables(rows, real)
    if args.out:
        args.out.write_text(json.dumps({"simulated": rows, "real": real}, indent=1) + "\n")


if __name__ == "__main__":
    main()
