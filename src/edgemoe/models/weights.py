"""The non-expert weights of a model by canonical name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgemoe.native import FloatArray, Matrix

if TYPE_CHECKING:
    from edgemoe.models.spec import ModelSpec


class DenseWeights:
    """Packed matrices, and norms and biases as float vectors, by canonical name."""

    def __init__(self, matrices: Mapping[str, Matrix], vectors: Mapping[str, FloatArray]) -> None:
        self._matrices = matrices
        self._vectors = vectors

    def matrix(self, name: str) -> Matrix:
        """The packed matrix of this name."""
        return self._matrices[name]

    def vector(self, name: str) -> FloatArray:
        """A norm's weight or a bias, as floats (M,)."""
        return self._vectors[name]

    def expert_biases(self, spec: ModelSpec, layer: int) -> FloatArray | None:
        """Biases of a layer's experts (E, 2 F + D), without a gate (E, F + D); None where they have none."""
        moe = spec.moe(layer)
        if not moe.expert.has_bias:
            return None
        parts = [self.vector(f"layers.{layer}.experts.{p}_bias") for p in moe.expert.projections]
        return np.concatenate([part.reshape(moe.router.num_experts, -1) for part in parts], axis=1)

    def optional_vector(self, name: str) -> FloatArray | None:
        """As ``vector``, or None where the model has none of this name."""
        return self._vectors.get(name)
