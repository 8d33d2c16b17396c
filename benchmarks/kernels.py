"""Speed and error of the packed formats, beside llama.cpp's where llama-cpp-python is installed.

python benchmarks/kernels.py [--isa avx512] [--rounds 7]

Prints a card and one JSON line. One token multiplies matrices of 128 MiB, larger than the caches; 512 tokens
multiply 2048 x 2048. The ceiling is the fastest read seen in the same loop: NumPy's sum or our bf16 product,
which does little besides reading. All runs take turns, so a busy moment hits everybody; medians are given.
llama.cpp runs its plain kernels, not the repacked ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ggml import Ggml, find_ggml

from edgemoe import native

COLS = 2048
TILE_ROWS = 64  # quantised once and repeated: speed does not depend on the values
STREAM_BYTES = 128 * 2**20
NUM_THREADS = 2
# Number of ggml's type, and its bytes per 256 weights.
RIVALS = {"q2": (10, 84), "q3": (11, 110), "q4": (12, 144), "q6": (14, 210), "q8": (8, 272)}


def reading() -> Callable[[], object]:
    """Sums STREAM_BYTES on NUM_THREADS threads: what plain reading reaches."""
    words = native.aligned_empty(STREAM_BYTES).view(np.int64)
    words[:] = 1
    parts = np.array_split(words, NUM_THREADS)
    pool = ThreadPoolExecutor(NUM_THREADS)
    return lambda: list(pool.map(np.sum, parts))


def our_product(format: str, weights: np.ndarray, num_rows: int, x: np.ndarray) -> Callable[[], object]:
    tile = native.quantize(weights, format)
    packed = native.aligned_empty(native.packed_num_bytes(format, num_rows, COLS))
    packed[:] = np.tile(tile, num_rows // TILE_ROWS)
    matrix = native.Matrix(packed, format, num_rows, COLS)
    out = np.empty((len(x), num_rows), np.float32)
    return lambda: native.matmul(x, matrix, out)


def medians(runs: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Median seconds of every run; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def relative_error(weights: np.ndarray, restored: np.ndarray) -> float:
    return float(np.sqrt(((weights - restored) ** 2).sum() / (weights**2).sum()))


def rival_error(ggml: Ggml, format: str, weights: np.ndarray) -> float:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind, block_bytes = RIVALS[format]
    packed = ggml.quantize(weights, kind, block_bytes * COLS // 256)
    return relative_error(weights, dequantize(packed, GGMLQuantizationType(kind)))


def measure(format: str, ggml: Ggml | None, read: Callable[[], object], num_rounds: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((TILE_ROWS, COLS)).astype(np.float32)
    x = rng.standard_normal((512, COLS)).astype(np.float32)
    num_rows = int(STREAM_BYTES * 8 / native.bits_per_weight(format, COLS) / COLS) // TILE_ROWS * TILE_ROWS
    runs = {
        "read": read,
        "read_bf16": our_product("bf16", weights, STREAM_BYTES // 2 // COLS, x[:1]),
        "one": our_product(format, weights, num_rows, x[:1]),
        "many": our_product(format, weights, 2048, x),
    }
    if ggml is not None and format in RIVALS:
        kind, block_bytes = RIVALS[format]
        tile = ggml.quantize(weights, kind, block_bytes * COLS // 256)
        runs["one_rival"] = ggml.product(np.tile(tile, (num_rows // TILE_ROWS, 1)), kind, x[:1], NUM_THREADS)
        runs["many_rival"] = ggml.product(np.tile(tile, (2048 // TILE_ROWS, 1)), kind, x, NUM_THREADS)
    seconds = medians(runs, num_rounds)
    packed = native.quantize(weights, format)
    error = relative_error(weights, native.dequantize(packed, format, TILE_ROWS, COLS))
    num_bytes = native.packed_num_bytes(format, num_rows, COLS)
    ceiling = STREAM_BYTES / min(seconds["read"], seconds["read_bf16"])
    record: dict[str, object] = {
        "format": format,
        "bits_per_weight": native.bits_per_weight(format, COLS),
        "error": error,
        "one_token_gb_per_s": num_bytes / seconds["one"] / 1e9,
        "ceiling_gb_per_s": ceiling / 1e9,
        "of_ceiling": num_bytes / seconds["one"] / ceiling,
        "many_tokens_gmac_per_s": 512 * 2048 * COLS / seconds["many"] / 1e9,
    }
    if ggml is not None and format in RIVALS:
        record["rival_bits_per_weight"] = RIVALS[format][1] / 32
        record["error_to_rival"] = error / rival_error(ggml, format, weights)
        record["one_token_time_to_rival"] = seconds["one"] / seconds["one_rival"]
        record["many_tokens_time_to_rival"] = seconds["many"] / seconds["many_rival"]
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--isa", default=native.active_isa(), choices=native.available_isas())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    native.force_isa(arguments.isa)
    native.set_num_threads(NUM_THREADS)
    ggml, read = find_ggml(), reading()
    formats = [format for format in native.FORMATS if format != "f32"]
    records = [measure(format, ggml, read, arguments.rounds) for format in formats]
    print(f"{arguments.isa}, {NUM_THREADS} threads; ratios to llama.cpp at the same width, lower is better")
    for record in records:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v:5}" for k, v in record.items()))
    print(json.dumps({"benchmark": "kernels", "isa": arguments.isa, "formats": records}))


if __name__ == "__main__":
    main()
