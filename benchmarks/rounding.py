"""Time and error of rounding beside llama.cpp's quantiser of the same width, on one thread each.

python benchmarks/rounding.py [--rounds 5]

Prints a card and one JSON line. Both round the same Gaussian weights, in turns: first all columns alike, then
by an importance of the columns. The best processor time of each counts. The comparison needs
llama-cpp-python.
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
FORMATS = ("q2", "q3", "q4", "q6", "q8", "t2", "t3")


def best_seconds(calls: Sequence[Callable[[], Any]], num_rounds: int) -> list[float]:
    """The shortest of so many rounds of each; calls take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(num_rounds):
        for i, call in enumerate(calls):
            start = time.process_time()
            call()
            best[i] = min(best[i], time.process_time() - start)
    return best


def relative_error(found: np.ndarray, weights: np.ndarray, importance: np.ndarray | None) -> float:
    root = 1.0 if importance is None else np.sqrt(importance)
    return float(np.linalg.norm((found - weights) * root) / np.linalg.norm(weights * root))


def measure(format: str, is_weighted: bool, num_rounds: int) -> dict[str, Any]:
    """Seconds for 10^9 weights and relative errors, ours and theirs."""
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.02, (ROWS, COLS)).astype(np.float32)
    importance = np.exp(rng.normal(size=COLS)).astype(np.float32) if is_weighted else None
    calls: list[Callable[[], np.ndarray]] = [lambda: native.quantize(weights, format, importance)]
    ggml = find_ggml()
    kind, block_bytes = RIVALS[format]
    if ggml is not None:
        calls.append(lambda: ggml.quantize(weights, kind, block_bytes * COLS // 256, importance))
    seconds = [s * 1e9 / weights.size for s in best_seconds(calls, num_rounds)]
    ours = native.dequantize(calls[0](), format, ROWS, COLS)
    record = {
        "format": format,
        "is_weighted": is_weighted,
        "seconds": seconds[0],
        "error": relative_error(ours, weights, importance),
    }
    if ggml is not None:
        theirs = dequantize(calls[1](), GGMLQuantizationType(kind))
        record |= {"rival_seconds": seconds[1], "rival_error": relative_error(theirs, weights, importance)}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    native.set_num_threads(1)
    records = []
    print("                   seconds for 10^9 weights   error, %")
    print("                   ours  llama.cpp            ours  llama.cpp")
    for format in FORMATS:
        for is_weighted in (False, True):
            r = measure(format, is_weighted, arguments.rounds)
            records.append(r)
            name = f"{format} by importance" if is_weighted else format
            theirs = f"{r['rival_seconds']:9.1f}" if "rival_seconds" in r else " " * 9
            error = f"{100 * r['rival_error']:9.3f}" if "rival_error" in r else ""
            print(
                f"{name:17} {r['seconds']:6.1f}  {theirs}         {100 * r['error']:7.3f}  {error}",
                flush=True,
            )
    print(json.dumps({"benchmark": "rounding", "results": records}))


if __name__ == "__main__":
    main()
