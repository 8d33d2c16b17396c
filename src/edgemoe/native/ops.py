"""Float operations between matrix products. The result for one token never depends on the others.

Letters: T tokens, D width, E experts, K chosen experts. Arrays are C-contiguous float32 unless said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import edgemoe._native as _native
from edgemoe.native.matrix import FloatArray, Matrix

IntArray = NDArray[np.int32]

ROUTING_RULES = ("softmax_then_pick", "pick_then_softmax")


def rms_norm(x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
    """``x / sqrt(mean(x²) + eps) * weight`` for each row of x (T, D), weight (D,)."""
    out = np.empty_like(x)
    _native.rms_norm_into(x, weight, eps, out)
    return out


def choose_experts(
    x: FloatArray, router: Matrix, bias: FloatArray | None, top_k: int, rule: str, renormalize: bool
) -> tuple[IntArray, FloatArray]:
    """Experts of each token and their weights, both (T, K): those with the largest logits.

    The logits are x (T, D) times the ``router`` (E, D), plus ``bias`` (E,). Descending, ties to the lower id.
    "softmax_then_pick" takes the weights from the softmax over all experts (and makes them sum to 1 if
    ``renormalize``), "pick_then_softmax" over the picked.

    Raises:
        ValueError: unknown rule, top_k outside 1..E, or shapes do not fit.
    """
    if rule not in ROUTING_RULES:
        raise ValueError(f"choose_experts: unknown rule {rule!r}; known: {', '.join(ROUTING_RULES)}")
    ids = np.empty((len(x), top_k), np.int32)
    weights = np.empty((len(x), top_k), np.float32)
    _native.choose_experts_into(x, router, bias, rule == "softmax_then_pick", renormalize, ids, weights)
    return ids, weights


def combine(parts: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum over k, in the order 0..K-1, of weights (T, K) times rows t K + k of parts (T K, D): (T, D).

    Raises:
        ValueError: shapes do not fit.
    """
    out = np.empty((len(weights), parts.shape[1]), np.float32)
    _native.combine_into(parts, weights, out)
    return out
