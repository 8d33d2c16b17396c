"""Every numeric bound of the tests, with its derivation."""

from __future__ import annotations

import numpy as np

EPS = float(np.finfo(np.float32).eps)


def dot_bound(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bound of the rounding error of float32 dot products, x (T, M) and weights (N, M): (T, N).

    Twice the statistical bound eps * sqrt(n) * ||w * x||; the worst-case bound would let real bugs pass.
    The second term covers scales and corrections that are rounded apart from the products.
    """
    norms = np.sqrt((x.astype(np.float64) ** 2) @ (weights.astype(np.float64) ** 2).T)
    sums = np.abs(x).astype(np.float64) @ np.abs(weights).astype(np.float64).T
    return 2 * EPS * np.sqrt(x.shape[1]) * norms + 4 * EPS * sums
