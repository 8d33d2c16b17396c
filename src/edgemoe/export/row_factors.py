"""NVFP4's factor of a matrix, for which its blocks have no place: GGUF files have it in a tensor of its own.

``X.scale`` beside ``X.weight`` has one number for each matrix of a stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgemoe import native
from edgemoe.export.outline import ExpertPart, Target
from edgemoe.export.records import read_experts
from edgemoe.models import ModelSpec
from edgemoe.native import FloatArray, Matrix
from edgemoe.store import Store

# Architectures for which llama.cpp multiplies what experts give with that number; for others it reads it, and
# computes without.
_HEEDING = ("hy_v3", "llama", "nemotron_h_moe", "qwen35moe", "qwen3moe", "qwen3next")
BLOCK_TYPE = "NVFP4"


def scale_name(target: Target) -> str:
    """The tensor with the factors of another."""
    return f"{target.name.removesuffix('.weight')}.scale"


def expert_factors(
    store: Store, spec: ModelSpec, targets: Sequence[Target], architecture: str
) -> dict[str, FloatArray | None]:
    """The factor of each matrix of these stacks, (E,), by their names; None where a file cannot say them.

    Reads all experts of the store, if there is any such stack.

    Raises:
        StoreError, CorruptStoreError: the store is damaged.
    """
    found: dict[str, FloatArray | None] = {
        target.name: np.full(target.num_entries, np.nan, np.float32) for target in targets
    }
    places = {part.of: (target, part.ref.index) for target in targets for part in target.parts}
    for part, matrix in _matrices(store, spec) if found else ():
        if part not in places:
            continue
        target, index = places[part]
        factors, own = found[target.name], native.row_factors(matrix)
        is_one = bool((own == own[0]).all())
        if factors is not None and is_one and (np.isnan(factors[index]) or factors[index] == own[0]):
            factors[index] = own[0]
        else:
            found[target.name] = None
    heeds = architecture in _HEEDING
    return {n: f if f is not None and (heeds or (f == 1).all()) else None for n, f in found.items()}


def has_factors(tensor: Matrix | FloatArray) -> bool:
    """Whether rows of a dense tensor in nvfp4 are multiplied with something."""
    return isinstance(tensor, Matrix) and bool((native.row_factors(tensor) != 1).any())


def _matrices(store: Store, spec: ModelSpec) -> Iterator[tuple[ExpertPart, Matrix]]:
    for key, matrices, _ in read_experts(store, spec):
        for projection, matrix in matrices.items():
            if matrix.format == "nvfp4":
                yield (*key, projection), matrix
