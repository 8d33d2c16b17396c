"""Float operations between matrix products. The result for one token never depends on the others.

Letters: T tokens, D width, H query heads, G key/value heads, C head dimension, S cache slots, E experts,
K chosen experts, R rotated pairs. Arrays are C-contiguous float32 unless said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgemoe._native as _native
from edgemoe.native.matrix import FloatArray

IntArray = NDArray[np.int32]

ROUTING_RULES = ("softmax_then_pick", "pick_then_softmax")


def rms_norm(x: FloatArray, weight: FloatArray, eps: float, out: FloatArray | None = None) -> FloatArray:
    """``x / sqrt(mean(x²) + eps) * weight`` for each row of x (T, D), weight (D,)."""
    if out is None:
        out = np.empty_like(x)
    _native.rms_norm_into(x, weight, eps, out)
    return out


def rope(x: FloatArray, cos: FloatArray, sin: FloatArray) -> None:
    """Rotate pairs (i, R + i) of every head of x (T, H, C) in place; cos, sin (T, R), 2 R <= C."""
    _native.rope_inplace(x, cos, sin)


def store_kv(cache: NDArray[Any], new: FloatArray, start: int) -> None:
    """Write new (T, G, C) to slots [start, start + T) of a float16 or float32 cache (G, S, C)."""
    _native.store_kv(cache, new, start)


def attention(
    q: FloatArray,
    keys: NDArray[Any],
    values: NDArray[Any],
    start: int,
    scale: float,
    window: int = 0,
    num_keys: int = 0,
    bias: FloatArray | None = None,
) -> FloatArray:
    """Causal attention of q (T, H, C) over caches (G, S, C): (T, H, C).

    Query t has position ``start + t`` and sees the positions up to its own, with ``window`` > 0 only
    the last ``window`` of them. With ``num_keys`` > 0 it is not causal: every query sees exactly the first
    ``num_keys`` positions. ``bias`` (H, 2 R - 1) is added to the scores: column R - 1 + d to those of keys
    d positions after their query; R is more than any distance.

    Raises:
        ValueError: shapes do not fit.
    """
    out = np.empty_like(q)
    _native.attention_into(q, keys, values, start, scale, window, num_keys, bias, out)
    return out


def route(logits: FloatArray, top_k: int, rule: str, renormalize: bool) -> tuple[IntArray, FloatArray]:
    """Experts of each token and their weights, both (T, K), from router logits (T, E).

    Descending by logit, ties to the lower id. "softmax_then_pick" takes the weights from the softmax
    over all experts (and makes them sum to 1 if ``renormalize``), "pick_then_softmax" over the picked.

    Raises:
        ValueError: unknown rule, or top_k outside 1..E.
    """
    if rule not in ROUTING_RULES:
        raise ValueError(f"route: unknown rule {rule!r}; known: {', '.join(ROUTING_RULES)}")
    ids = np.empty((len(logits), top_k), np.int32)
    weights = np.empty((len(logits), top_k), np.float32)
    _native.route_into(logits, rule == "softmax_then_pick", renormalize, ids, weights)
    return ids, weights


def combine(parts: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum over k, in the order 0..K-1, of weights (T, K) times rows t K + k of parts (T K, D): (T, D).

    Raises:
        ValueError: shapes do not fit.
    """
    out = np.empty((len(weights), parts.shape[1]), np.float32)
    _native.combine_into(parts, weights, out)
    return out
