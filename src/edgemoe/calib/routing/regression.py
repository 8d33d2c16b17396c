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


class Ridge:
    """Least squares with a penalty on the size of the solution, for several penalties at once."""

    def __init__(self, features: FloatArray) -> None:
        """Features (N, C)."""
        self._features = features
        values, self._vectors = np.linalg.eigh(features.T.astype(np.float64) @ features)
        self._values = np.maximum(values, 0)
        self._scale = float(self._values.sum()) / features.shape[1]

    def solve(self, residual: FloatArray, start: FloatArray) -> Sequence[FloatArray]:
        """``start`` (E, C) plus the corrections that fit the residual (N, E), one per ridge; C-contiguous."""
        target = self._vectors.T @ (self._features.T.astype(np.float64) @ residual)
        return [start + self._correction(target, ridge * self._scale) for ridge in RIDGES]

    def _correction(self, target: NDArray[np.float64], penalty: float) -> FloatArray:
        solution = self._vectors @ (target / (self._values + penalty)[:, None])
        return np.ascontiguousarray(solution.T, np.float32)
