"""A checkpoint of random weights that is nowhere: every tensor is drawn when it is read.

    python benchmarks/random_source.py STORE --experts 128 --bits 4

converts a Switch-base shape of so many experts to a store without a checkpoint on disk; interrupted, the
same command goes on.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from random_checkpoint import switch_config, tensors

from edgemoe.checkpoint import SourceRef, TensorInfo
from edgemoe.convert import convert
from edgemoe.quant import BitPlan, format_for_bits

_POOL_VALUES = 4 * 1024**2
# T5's embedding is as wide as this; were it small, all tokens would be routed alike.
EMBEDDING_SPREAD, SPREAD = 1.0, 0.02


class RandomSource:
    """See CheckpointSource. Values repeat with the period of a pool; each tensor begins elsewhere in it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._shapes = dict(tensors(self._config))
        self._pool = np.random.default_rng(0).standard_normal(_POOL_VALUES).astype(np.float32)

    def config(self) -> dict[str, Any]:
        """See CheckpointSource."""
        return dict(self._config)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """See CheckpointSource."""
        return {
            name: TensorInfo(shape, "F32", 4 * int(np.prod(shape))) for name, shape in self._shapes.items()
        }

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """See CheckpointSource; no tensor of these families is stacked."""
        shape = self._shapes[ref.name]
        start, stop = ref.rows or (0, shape[0])
        row = int(np.prod(shape[1:]))
        if ref.name.endswith("norm.weight"):
            return np.ones((stop - start, *shape[1:]), np.float32)
        spread = EMBEDDING_SPREAD if ref.name == "shared.weight" else SPREAD
        first = zlib.crc32(ref.name.encode()) + start * row
        index = np.arange(first, first + (stop - start) * row) % _POOL_VALUES
        return (self._pool[index] * np.float32(spread)).reshape(stop - start, *shape[1:])

    def files(self) -> Mapping[str, bytes]:
        """See CheckpointSource; the tokenizer is that of the embedded demo."""
        names = ("tokenizer.json", "tokenizer_config.json")
        return {name: (files("edgemoe") / "demo_store" / name).read_bytes() for name in names}

    def close(self) -> None:
        """See CheckpointSource."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--bits", default="4")
    args = parser.parse_args()
    plan = BitPlan.uniform(format_for_bits(args.bits), "q8")
    report = convert(RandomSource(switch_config(args.experts)), args.store, plan)
    print(
        f"{report.path}: {report.num_bytes} bytes, {report.num_experts} experts of"
        f" {report.expert_bits_per_weight:.2f} bits per weight, {report.elapsed_s:.0f} s"
    )


if __name__ == "__main__":
    main()
