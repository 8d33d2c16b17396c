"""Latent attention in its absorbed form (DeepSeek-V2, arXiv 2405.04434).

Letters: T rows, D width, H heads, Q rank of queries, L latent dimension, N and R plain and rotated dimension
of a query's head, C dimension of a value's, S slots; N' is N rounded up to 32, C' is C rounded up to 16.
Arrays are C-contiguous float32.

``LatentLayer(norm, eps, q_a, q_b, kv_a, kv_a_norm, k_b, v_b, o, *, num_heads, plain_dim, rotary_dim,
value_dim, scale, inner_eps, post_norm=None, branch_scale=1)``: ``norm`` (D,) is applied to what comes in.
Queries are made by ``q_a``, a pair of (matrix (Q, D), bias or None) and its norm (Q,), then ``q_b`` (H (N +
R), Q); with None in place of ``q_a`` by ``q_b`` (H (N + R), D) alone. ``kv_a``, a pair of a matrix (L + R, D)
and its bias or None, makes a latent vector, which passes ``kv_a_norm`` (L,), and a key that rotates; both are
what the cache keeps. ``k_b`` (H L, N') has each head's matrix of keys transposed, ``v_b`` (H C', L) that of
values, both with zeros where they are wider than the head; ``o`` is a pair of a matrix (D, H C) and its bias
or None. Scores are multiplied by ``scale``; what comes out passes ``post_norm`` (D,), if any, and is added to
x times ``branch_scale``.

``run(x, segments)`` adds to x (T, D) what its rows see. A segment holds the rows of one text: a tuple (first
row, number of rows, cache, start, rotation). Its rows stand from slot ``start`` on of its cache (1, S, L + R)
of float16 or float32, where their own latents are written first; ``rotation`` is None or cos and sin (rows,
R / 2) of the angles by which pairs (i, R / 2 + i) of queries and keys are rotated. Segments follow each other
and cover all rows. ValueError where shapes do not fit; OverflowError where float16 cannot hold a latent.
"""

from __future__ import annotations

import edgemoe._native as _native

LatentLayer = _native.LatentLayer
