"""Float operations between matrix products. The result for one token never depends on the others.

Letters: T tokens, D width, K chosen experts. Arrays are C-contiguous float32 unless said.
"""

from __future__ import annotations

import numpy as np

import edgemoe._native as _native
from edgemoe.native.matrix import FloatArray


def rms_norm(x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
    """``x / sqrt(mean(x²) + eps) * weight`` for each row of x (T, D), weight (D,).

    Rows may be filled up with zeros to a multiple of 32, which the mean leaves out.
    """
    out = np.empty_like(x)
    _native.rms_norm_into(x, weight, eps, out)
    return out


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, eps: float) -> FloatArray:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` for each row of x (T, D) as in ``rms_norm``."""
    out = np.empty_like(x)
    _native.layer_norm_into(x, weight, bias, eps, out)
    return out


def all_finite(x: FloatArray) -> bool:
    """Whether every number of x (T, D) is finite."""
    return _native.all_finite(x)


def squares_finite(x: FloatArray) -> bool:
    """Whether ``rms_norm`` can take x (T, D): all finite, and so is the sum of each row's squares."""
    return _native.squares_finite(x)


def combine(parts: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum over k, in the order 0..K-1, of weights (T, K) times rows t K + k of parts (T K, D): (T, D).

    Raises:
        ValueError: shapes do not fit.
    """
    out = np.empty((len(weights), parts.shape[1]), np.float32)
    _native.combine_into(parts, weights, out)
    return out
