"""Time and error of rounding beside llama.cpp's quantiser of the same width, on one thread each.

python benchmarks/rounding.py [--rounds 5]

Prints a card and one JSON line. Both round the same Gaussian weights, in turns; the best time of each counts.
The comparison needs llama-cpp-python. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ggml import RIVALS, find_ggml
from gguf import GGMLQuantizationType, dequantize

from edgemoe import native

ROWS, COLS = 64, 2048
FORMATS = ("q2", "q3", "q4", "q6", "q8")


def best_seconds(calls: Sequence[Callable[[], Any]], num_rounds: int) -> list[float]:
    """The shortest of so many rounds of each; calls take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(num_rounds):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def relative_error(found: np.ndarray, weights: np.ndarray) -> float:
    return float(np.linalg.norm(found - weights) / np.linalg.norm(weights))


def measure(format: str, num_rounds: int) -> dict[str, Any]:
    """Seconds for 10^9 weights and relative errors, ours and theirs."""
    weights = np.random.default_rng(1).normal(0, 0.02, (ROWS, COLS)).astype(np.float32)
    calls: list[Callable[[], np.ndarray]] = [lambda: native.quantize(weights, format)]
    ggml = find_ggml()
    kind, block_bytes = RIVALS[format]
    if ggml is not None:
        calls.append(lambda: ggml.quantize(weights, kind, block_bytes * COLS // 256))
    seconds = [s * 1e9 / weights.size for s in best_seconds(calls, num_rounds)]
    ours = native.dequantize(calls[0](), format, ROWS, COLS)
    record = {"format": format, "seconds": seconds[0], "error": relative_error(ours, weights)}
    if ggml is not None:
        theirs = dequantize(calls[1](), GGMLQuantizationType(kind))
        record |= {"rival_seconds": seconds[1], "rival_error": relative_error(theirs, weights)}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    native.set_num_threads(1)
    records = []
    print("      seconds for 10^9 weights   error, %")
    print("      ours  llama.cpp            ours  llama.cpp")
    for format in FORMATS:
        r = measure(format, arguments.rounds)
        records.append(r)
        theirs = f"{r['rival_seconds']:9.1f}" if "rival_seconds" in r else " " * 9
        error = f"{100 * r['rival_error']:9.3f}" if "rival_error" in r else ""
        print(
            f"{r['format']:4} {r['seconds']:6.1f}  {theirs}         {100 * r['error']:7.3f}  {error}",
            flush=True,
        )
    print(json.dumps({"benchmark": "rounding", "results": records}))


if __name__ == "__main__":
    main()
