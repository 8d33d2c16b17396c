"""Speed of the packed formats beside the memory and beside llama.cpp's kernels.

python benchmarks/kernels.py [--isa avx2] [--beside ISA] [--rounds 9] [--write docs/quantization.md]

Prints a card and one JSON line; `--write` puts the table of that instruction set into the document, which
has one for each. One token multiplies matrices of 128 MiB, larger than the caches; 512 tokens multiply 2048
x 2048. All runs of a width take turns, with reading between, so a busy moment hits everybody; medians are
given. The ceiling is reading as much memory in the same turns. llama.cpp (where llama-cpp-python is
installed) runs Q2_K, Q3_K, Q4_K, Q6_K and Q8_0 as they are and, where it has kernels for that, rearranged
("repacked"); the faster one counts. `--beside` runs another instruction set in the same turns and prints its
time over that of `--isa`. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import format_errors
import numpy as np
from ggml import RIVALS, Ggml, Product, find_ggml
from tables import replace_between

from edgemoe import native

COLS = 2048
TILE_ROWS = 64  # quantised once and repeated: speed does not depend on the values
STREAM_BYTES = 128 * 2**20
NUM_THREADS = 2
MANY_TOKENS, MANY_ROWS = 512, 2048
# Threads of an engine go on spinning for some milliseconds, on a core that the next one needs. Reading memory
# meanwhile, and not sleeping, keeps the processor awake.
NUM_SPACERS = 3
FORMATS = ("t2", "q2", "t3", "q3", "q4", "q6", "q8", "bf16", "f16")


def our_product(isa: str, format: str, weights: np.ndarray, num_rows: int, x: np.ndarray) -> Product:
    tile = native.quantize(weights, format)
    packed = native.aligned_empty(native.packed_num_bytes(format, num_rows, COLS))
    packed.reshape(-1, len(tile))[:] = tile
    matrix = native.Matrix(packed, format, num_rows, COLS)
    out = np.empty((len(x), num_rows), np.float32)

    def product() -> None:
        native.force_isa(isa)
        native.matmul(x, matrix, out)

    return product


def rival_products(
    ggml: Ggml, format: str, weights: np.ndarray, num_rows: int, x: np.ndarray
) -> list[Product]:
    """As the file has the rows, and rearranged where there are kernels for that."""
    kind, block_bytes = RIVALS[format]
    tile = ggml.quantize(weights, kind, block_bytes * COLS // 256)
    packed = np.tile(tile, (num_rows // TILE_ROWS, 1))
    products = (
        ggml.product(packed, kind, x, NUM_THREADS),
        ggml.rearranged_product(packed, kind, x, NUM_THREADS),
    )
    return [product for product in products if product is not None]


def medians(runs: dict[str, Product], num_rounds: int) -> dict[str, float]:
    """Median seconds of every run; they take turns, with ``read`` between."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_rounds + 1):
        for name, run in runs.items():
            for _ in range(NUM_SPACERS):
                runs["read"]()
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def measure(isa: str, beside: str | None, format: str, ggml: Ggml | None, num_rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((TILE_ROWS, COLS)).astype(np.float32)
    x = rng.standard_normal((MANY_TOKENS, COLS)).astype(np.float32)
    num_rows = int(STREAM_BYTES * 8 / native.bits_per_weight(format, COLS) / COLS) // TILE_ROWS * TILE_ROWS
    memory = native.aligned_empty(STREAM_BYTES)
    memory[:] = 1
    runs: dict[str, Product] = {
        "read": lambda: native.read_memory(memory),
        "one": our_product(isa, format, weights, num_rows, x[:1]),
        "many": our_product(isa, format, weights, MANY_ROWS, x),
    }
    if beside is not None:
        runs["one_beside"] = our_product(beside, format, weights, num_rows, x[:1])
        runs["many_beside"] = our_product(beside, format, weights, MANY_ROWS, x)
    if ggml is not None and format in RIVALS:
        for name, rows, tokens in (("one", num_rows, x[:1]), ("many", MANY_ROWS, x)):
            for i, product in enumerate(rival_products(ggml, format, weights, rows, tokens)):
                runs[f"{name}_rival{i}"] = product
    seconds = medians(runs, num_rounds)
    num_bytes = native.packed_num_bytes(format, num_rows, COLS)
    record: dict[str, Any] = {
        "format": format,
        "bits_per_weight": native.bits_per_weight(format, COLS),
        "one_token_gb_per_s": num_bytes / seconds["one"] / 1e9,
        "of_reading": num_bytes / seconds["one"] / (STREAM_BYTES / seconds["read"]),
        "many_tokens_gmac_per_s": MANY_TOKENS * MANY_ROWS * COLS / seconds["many"] / 1e9,
    }
    for name in ("one", "many"):
        if beside is not None:
            record[f"{name}_time_of_beside"] = seconds[f"{name}_beside"] / seconds[name]
        rivals = [value for key, value in seconds.items() if key.startswith(f"{name}_rival")]
        if rivals:
            record[f"{name}_time_to_rival"] = seconds[name] / min(rivals)
            record[f"{name}_rival_rearranged_gains"] = rivals[0] / rivals[-1]
    return record


def measure_isa(isa: str, beside: str | None, ggml: Ggml | None, num_rounds: int) -> list[dict[str, Any]]:
    native.set_num_threads(NUM_THREADS)
    records = []
    for format in FORMATS:
        print(f"timing {format}", file=sys.stderr)
        records.append(measure(isa, beside, format, ggml, num_rounds))
    return records


def card(isa: str, beside: str | None, records: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"{isa}, {NUM_THREADS} threads; time beside llama.cpp's faster kernel, lower is better",
        f"{'':5} {'GB/s':>6} {'of reading':>11} {'GMAC/s':>7} {'one token':>10} {'512 tokens':>11}",
    ]
    for r in records:
        ratios = [f"{r[key]:.2f}x" if key in r else "" for key in ("one_time_to_rival", "many_time_to_rival")]
        lines.append(
            f"{r['format']:5} {r['one_token_gb_per_s']:6.1f} {r['of_reading']:11.2f}"
            f" {r['many_tokens_gmac_per_s']:7.0f} {ratios[0]:>10} {ratios[1]:>11}"
        )
    if beside is not None:
        lines.append(f"time of {beside} over that of {isa}, higher is better for {isa}")
        lines.append(f"{'':5} {'one token':>10} {'512 tokens':>11}")
        for r in records:
            one, many = r["one_time_of_beside"], r["many_time_of_beside"]
            lines.append(f"{r['format']:5} {one:10.2f} {many:11.2f}")
    return "\n".join(lines)


def speed_table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: a row for every width."""
    lines = [
        "| format | bits per weight | one token, GB/s | of reading memory | beside llama.cpp"
        " | 512 tokens, GMAC/s | beside llama.cpp |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in records:
        one, many = (
            f"{r[key]:.2f}x" if key in r else "" for key in ("one_time_to_rival", "many_time_to_rival")
        )
        lines.append(
            f"| {r['format']} | {r['bits_per_weight']:.2f} | {r['one_token_gb_per_s']:.1f}"
            f" | {r['of_reading']:.2f} | {one} | {r['many_tokens_gmac_per_s']:.0f} | {many} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--isa", default=native.active_isa(), choices=native.available_isas())
    parser.add_argument("--beside", choices=native.available_isas(), help="another one, in the same turns")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, help="document to put the tables into")
    arguments = parser.parse_args()
    ggml = find_ggml()
    isa, beside = arguments.isa, arguments.beside
    records = measure_isa(isa, beside, ggml, arguments.rounds)
    print(card(isa, beside, records))
    if arguments.write:
        # One table for AVX-512: only t2 and t3 are faster with VBMI than without.
        replace_between(arguments.write, f"speed of {isa.removesuffix('vbmi')}", speed_table(records))
        if ggml is not None:
            replace_between(arguments.write, "errors", format_errors.table(format_errors.measure(ggml)))
    print(json.dumps({"benchmark": "kernels", "isa": isa, "beside": beside, "results": records}))


if __name__ == "__main__":
    main()
