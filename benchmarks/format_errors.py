"""Error of the packed formats beside llama.cpp's quantisers at the same widths.

python benchmarks/format_errors.py [MODEL]

Root-mean-square error relative to the weights on a Gaussian, a heavy-tailed (Student-t, 5 degrees of freedom)
and expert matrices of a trained checkpoint (default: the reference model), without any data; and the error of
the product with inputs whose columns differ in size, both quantisers told the mean square of the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ggml import RIVALS, Ggml, find_ggml

from edgemoe import native
from edgemoe.checkpoint import SourceRef, open_checkpoint

MODEL = Path(__file__).parents[1] / "models" / "edgemoe-16m"
SHAPE = (256, 2048)
NUM_EXPERT_TENSORS = 8
NUM_TOKENS = 256


def matrices(model: Path) -> dict[str, np.ndarray]:
    """Rows of a multiple of 256 columns, which llama.cpp's formats need."""
    rng = np.random.default_rng(0)
    return {
        "Gaussian": rng.standard_normal(SHAPE).astype(np.float32),
        "Student-t": rng.standard_t(5, SHAPE).astype(np.float32),
        "trained": _trained(model),
    }


def _trained(model: Path) -> np.ndarray:
    """Gate and up projections of some experts, one below the other."""
    source = open_checkpoint(model)
    try:
        names = [n for n in sorted(source.tensors()) if n.endswith(("gate_proj.weight", "up_proj.weight"))]
        step = max(1, len(names) // NUM_EXPERT_TENSORS)
        return np.concatenate([source.read(SourceRef(name)) for name in names[::step]])
    finally:
        source.close()


def relative_error(weights: np.ndarray, restored: np.ndarray) -> float:
    return float(np.sqrt(((weights - restored) ** 2).sum() / (weights**2).sum()))


def restored(
    ggml: Ggml | None, format: str, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """What comes back from our format, or from llama.cpp's of the same width."""
    if ggml is None:
        return native.dequantize(native.quantize(weights, format, importance), format, *weights.shape)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind, block_bytes = RIVALS[format]
    packed = ggml.quantize(weights, kind, block_bytes * weights.shape[1] // 256, importance)
    return dequantize(packed, GGMLQuantizationType(kind))


def output_errors(ggml: Ggml, format: str, weights: np.ndarray) -> tuple[float, float]:
    """Relative error of the product, ours and llama.cpp's, each told which columns matter."""
    rng = np.random.default_rng(1)
    sizes = np.exp(rng.standard_normal(weights.shape[1]))
    x = (rng.standard_normal((NUM_TOKENS, weights.shape[1])) * sizes).astype(np.float32)
    importance = (x**2).mean(axis=0)
    exact = x @ weights.T
    ours, rival = (
        relative_error(exact, x @ restored(engine, format, weights, importance).T) for engine in (None, ggml)
    )
    return ours, rival


def measure(ggml: Ggml, model: Path = MODEL) -> list[dict[str, Any]]:
    records = []
    samples = matrices(model)
    for format, (_, block_bytes) in RIVALS.items():
        print(f"measuring {format}", file=sys.stderr)
        record: dict[str, Any] = {
            "format": format,
            "bits_per_weight": native.bits_per_weight(format, SHAPE[1]),
            "rival_bits_per_weight": block_bytes * 8 / 256,
        }
        for name, weights in samples.items():
            ours, rival = (relative_error(weights, restored(g, format, weights)) for g in (None, ggml))
            record[name] = (ours, ours / rival)
        ours, rival = output_errors(ggml, format, samples["Gaussian"])
        record["output"] = (ours, ours / rival)
        records.append(record)
    return records


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: error, and in brackets its ratio to llama.cpp's."""
    columns = ("Gaussian", "Student-t", "trained", "output")
    lines = [
        "| format | bits per weight | llama.cpp's | Gaussian | Student-t | trained experts"
        " | output, with importance |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in records:
        cells = [r["format"], f"{r['bits_per_weight']:.3f}", f"{r['rival_bits_per_weight']:.3f}"]
        cells += [f"{error:.2%} ({ratio:.3f})" for error, ratio in (r[column] for column in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=MODEL)
    ggml = find_ggml()
    if ggml is None:
        raise SystemExit("needs pip install llama-cpp-python gguf")
    print("\n".join(table(measure(ggml, parser.parse_args().model))))


if __name__ == "__main__":
    main()
