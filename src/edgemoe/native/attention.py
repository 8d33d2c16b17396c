"""Attention over cached keys and values. The result for one token never depends on the others.

Letters: T tokens, D width, H query heads, G key/value heads, C head dimension, S cache slots. Arrays are
C-contiguous float32 unless said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgemoe._native as _native
from edgemoe.native.matrix import FloatArray


def store_kv(cache: NDArray[Any], new: FloatArray, start: int) -> None:
    """Write new (T, G, C) to slots [start, start + T) of a float16 or float32 cache (G, S, C).

    Raises:
        OverflowError: a float16 cache cannot hold them; they are written all the same.
    """
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
    sinks: FloatArray | None = None,
    value_dim: int = 0,
) -> FloatArray:
    """Causal attention of q (T, H, C) over caches (G, S, C): (T, H, C), or (T, H, ``value_dim``) where only
    the first entries of values count.

    Query t has position ``start + t`` and sees the positions up to its own, with ``window`` > 0 only
    the last ``window`` of them. With ``num_keys`` > 0 it is not causal: every query sees exactly the first
    ``num_keys`` positions. ``bias`` (H, 2 R - 1) is added to the scores: column R - 1 + d to those of keys
    d positions after their query; R is more than any distance. ``sinks`` (H,) are one more score of each
    head, of nothing: they take their part of the softmax and have no value (gpt-oss).

    Raises:
        ValueError: shapes do not fit.
    """
    out = np.empty((*q.shape[:2], value_dim or q.shape[2]), np.float32)
    _native.attention_into(q, keys, values, start, scale, window, num_keys, bias, sinks, out)
    return out
