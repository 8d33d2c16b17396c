"""Attention over cached keys and values. The result for one token never depends on the others.

Letters: T tokens, D width, H query heads, G key/value heads, C head dimension, S cache slots, R rotated
pairs. Arrays are C-contiguous float32 unless said.

``AttentionLayer(norm, eps, q, k, v, o, qk_norms, *, has_norms_of_heads, num_heads, num_kv_heads, head_dim,
clip=0, scale, window=0, has_gate=False, normalizes_values=False, sinks=None, post_norm=None, branch_scale=1,
norm_bias=None)`` is the attention half of a decoder's layer. ``q``, ``k``, ``v`` and ``o`` are pairs of a
matrix and its bias or None: from D to H C, G C and G C, and from H C to D; ``norm`` (D,) is applied to what
the first three get, by the mean square, or with ``norm_bias`` (D,) by mean and variance. With ``has_gate``
the rows of q are, head by head, C of the query and C of a gate, by whose logistic function the head's result
is multiplied. Where ``v`` is None the values are the keys as projected; ``normalizes_values`` divides each of
their heads by its root mean square. ``qk_norms`` are None or two weights, for queries and keys: of (C,) for
each head with ``has_norms_of_heads``, else of (H C,) and (G C,) for all heads together. Values beyond
``clip`` are cut unless it is 0; ``scale``, ``window`` and ``sinks`` are as :func:`attention` takes them. What
comes out passes the norm ``post_norm`` (D,), if any, and is added to x times ``branch_scale``.

``run(x, segments)`` adds to x (T, D) what its rows see. A segment holds the rows of one text: a tuple (first
row, number of rows, keys, values, start, rotation, bias). Its rows stand from slot ``start`` on of its caches
(G, S, C), where their own keys and values are written first; ``rotation`` is None or cos and sin (rows, R) of
the angles by which pairs (i, R + i) of every head of queries and keys are rotated; ``bias`` is None or as
:func:`attention` takes it. Segments follow each other and cover all rows. ValueError where shapes do not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgemoe._native as _native
from edgemoe.native.matrix import FloatArray

AttentionLayer = _native.AttentionLayer


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
) -> FloatArray:
    """Causal attention of q (T, H, C) over caches (G, S, C): (T, H, C).

    Query t has position ``start + t`` and sees the positions up to its own, with ``window`` > 0 only
    the last ``window`` of them. With ``num_keys`` > 0 it is not causal: every query sees exactly the first
    ``num_keys`` positions. ``bias`` (H, 2 R - 1) is added to the scores: column R - 1 + d to those of keys
    d positions after their query; R is more than any distance. ``sinks`` (H,) are one more score of each
    head, of nothing: they take their part of the softmax and have no value (gpt-oss).

    Raises:
        ValueError: shapes do not fit.
    """
    out = np.empty_like(q)
    _native.attention_into(q, keys, values, start, scale, window, num_keys, bias, sinks, out)
    return out
