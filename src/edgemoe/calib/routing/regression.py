"""Ridge regression, the way everything linear is fitted here.

Letters: N rows, C columns, E outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgemoe.native import FloatArray

# Penalties, relative to the mean square of the features.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)

# Rows that are made double precision at a time: all of a long trace would take six times its memory.
_ROWS = 4096


class Ridge:
    """Least squares with a penalty on the size of the solution, for several penalties at once."""

    def __init__(self, features: FloatArray) -> None:
        """Features (N, C)."""
        self._features = features
        values, self._vectors = np.linalg.eigh(self._products(features))
        self._values = np.maximum(values, 0)
        self._scale = float(self._values.sum()) / features.shape[1]

    def solve(self, residual: FloatArray, start: FloatArray) -> Sequence[FloatArray]:
        """``start`` (E, C) plus the corrections that fit the residual (N, E), one per ridge; C-contiguous."""
        target = self._vectors.T @ self._products(residual)
        return [start + self._correction(target, ridge * self._scale) for ridge in RIDGES]

    def _products(self, other: FloatArray) -> NDArray[np.float64]:
        """Of features' columns with those of ``other`` (N, E), in double precision, some rows at a time."""
        found = np.zeros((self._features.shape[1], other.shape[1]))
        for first in range(0, len(other), _ROWS):
            rows = slice(first, first + _ROWS)
            found += self._features[rows].T.astype(np.float64) @ other[rows].astype(np.float64)
        return found

    def _correction(self, target: NDArray[np.float64], penalty: float) -> FloatArray:
        solution = self._vectors @ (target / (self._values + penalty)[:, None])
        return np.ascontiguousarray(solution.T, np.float32)
