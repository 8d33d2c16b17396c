"""The non-expert weights of a model by canonical name."""

from __future__ import annotations

from collections.abc import Mapping

from edgemoe.native import FloatArray, Matrix


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

    def optional_vector(self, name: str) -> FloatArray | None:
        """As ``vector``, or None where the model has none of this name."""
        return self._vectors.get(name)
