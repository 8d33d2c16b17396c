"""Time and error of rounding beside llama.cpp's quantiser of the same kind and width, on one thread each.

python benchmarks/rounding.py [--rounds 5]

Prints a card and one JSON line. Both round the same Gaussian weights, in turns: first all columns alike, then
by an importance of the columns. The best processor time of each counts. Trellis codes are compared with
codebooks, which choose several weights together as they do. The comparison needs llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ggml import find_ggml
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from edgemoe import native

ROWS, COLS = 64, 2048
RIVALS = {
    "q2": GGMLQuantizationType.Q2_K,
    "q3": GGMLQuantizationType.Q3_K,
    "q4": GGMLQuantizationType.Q4_K,
    "q6": GGMLQuantizationType.Q6_K,
    "q8": GGMLQuantizationType.Q8_0,
    "t2": GGMLQuantizationType.IQ2_XXS,
    "t3": GGMLQuantizationType.IQ3_XXS,
}


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
    rival = RIVALS[format]
    block_size, block_bytes = GGML_QUANT_SIZES[rival]
    if ggml is not None:
        needs_importance = rival == GGMLQuantizationType.IQ2_XXS
        columns = np.ones(COLS, np.float32) if importance is None and needs_importance else importance
        calls.append(lambda: ggml.quantize(weights, rival, COLS // block_size * block_bytes, columns))
    seconds = [s * 1e9 / weights.size for s in best_seconds(calls, num_rounds)]
    ours = native.dequantize(calls[0](), format, ROWS, COLS)
    record = {
        "format": format,
        "bits_per_weight": native.bits_per_weight(format, COLS),
        "is_weighted": is_weighted,
        "seconds": seconds[0],
        "error": relative_error(ours, weights, importance),
    }
    if ggml is not None:
        theirs = dequantize(calls[1](), rival)
        record |= {
            "rival": rival.name,
            "rival_bits_per_weight": 8 * block_bytes / block_size,
            "rival_seconds": seconds[1],
            "rival_error": relative_error(theirs, weights, importance),
        }
    return record


def card_line(name: str, prefix: str, r: dict[str, Any]) -> str:
    how = "by importance" if r["is_weighted"] else "columns alike"
    bits, seconds, error = (r[prefix + key] for key in ("bits_per_weight", "seconds", "error"))
    return f"{name:8} {how:24} {bits:8.2f} {seconds:17.1f} {100 * error:10.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    native.set_num_threads(1)
    records = []
    print("                                     bits  seconds for 10^9   error, %")
    for format in RIVALS:
        for is_weighted in (False, True):
            r = measure(format, is_weighted, arguments.rounds)
            records.append(r)
            print(card_line(format, "", r))
            if "rival" in r:
                print(card_line(r["rival"], "rival_", r), flush=True)
    print(json.dumps({"benchmark": "rounding", "results": records}))


if __name__ == "__main__":
    main()
