"""Numeric bounds that several tests share, with their derivation, and what is compared with them."""

from __future__ import annotations

import numpy as np

EPS = float(np.finfo(np.float32).eps)
# Of ``relative``: the rounding of two f32 implementations over a few layers, with room.
F32_RELATIVE = 1e-4
# Of ``median_relative``: llama.cpp keeps keys and values in f16 and rounds activations to f16 before f16
# products, 2^-11 each.
LLAMA_CPP_RELATIVE = 5e-3


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """The length of the difference over the length of what is expected."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def median_relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """The same for each position of logits (T, V), and of these the median.

    Where two experts nearly tie, rounding picks the other for one token: its logits are others.
    """
    errors = np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(np.median(errors))


def dot_bound(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bound of the rounding error of float32 dot products, x (T, M) and weights (N, M): (T, N).

    Twice the statistical bound eps * sqrt(n) * ||w * x||; the worst-case bound would let real bugs pass.
    The second term covers scales and corrections that are rounded apart from the products.
    """
    norms = np.sqrt((x.astype(np.float64) ** 2) @ (weights.astype(np.float64) ** 2).T)
    sums = np.abs(x).astype(np.float64) @ np.abs(weights).astype(np.float64).T
    return 2 * EPS * np.sqrt(x.shape[1]) * norms + 4 * EPS * sums
