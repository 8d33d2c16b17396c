"""Token mixers whose state has a fixed size, from the residual stream back into it.

Letters: T rows of a step, D width, Hk key heads, Hv value heads, Dk and Dv their dimensions, C channels of
the convolution, K its taps. Arrays are C-contiguous float32, matrices packed. The result for a row never
depends on the other texts of the step, nor on how its own is cut; rows of one text run one after the other.

``GatedDeltaNet(norm, eps, qkv, z, beta, alpha, decay, dt_bias, taps, output_norm, out, *, num_key_heads,
num_value_heads, key_dim, value_dim, branch_scale=1)`` (arXiv 2412.06464): ``qkv`` (C, D) with C = 2 Hk Dk +
Hv Dv makes queries, keys and values of the rows after ``norm`` (D,); ``z`` (Hv Dv, D) gates, ``beta`` and
``alpha`` (Hv, D) say how much is written and kept. ``taps`` (K, C), the last for the token itself; then silu,
and queries and keys get length Dk^-0.5 and 1. A head's state S (Dk, Dv) is multiplied by exp(``decay``
softplus(alpha + ``dt_bias``)); the logistic function of beta times (v - S k) is added to it along k; S q,
normed by ``output_norm`` (Dv,) and times silu(z), passes ``out`` (D, Hv Dv) and is added to x, times
``branch_scale``. Value head h belongs to key head h Hk / Hv, rounded down. A segment is (first row, number of
rows, state (Hv, Dk, Dv), tail (K - 1, C)).

``ShortConv(norm, eps, in_, in_bias, taps, conv_bias, out, out_bias, *, branch_scale=1)`` (LFM2): ``in_`` (3
D, D) makes a gate, another gate and values; values times the first gate pass the convolution of ``taps`` (K,
D), and what comes out times the second gate passes ``out`` (D, D). Biases may be None. A segment is (first
row, number of rows, None, tail (K - 1, D)).

``Mamba2(norm, eps, z, mixed, steps, in_bias, decay, dt_bias, skip, taps, conv_bias, output_norm, out,
out_bias, *, num_heads, head_dim, num_groups, state_dim, step_low, step_high, branch_scale=1)`` (arXiv
2405.21060): H heads of P entries, I = H P, in G groups, with states of length N; C = I + 2 G N. ``z`` (I, D)
gates; ``mixed`` (C, D) makes values and, for each group, what they are written along and what is read along;
``steps`` (H, D) says how far a token goes; ``in_bias`` (I + C + H,) is added to all three. What is mixed
passes the convolution of ``taps`` (K, C) and ``conv_bias``, then silu. With dt = softplus(steps +
``dt_bias``), kept between the limits, a head's state S (N, P) is multiplied by exp(``decay`` dt), and dt
times the values is added along what they are written along. What is read of it, plus ``skip`` (H,) times the
values, is multiplied by silu(z), normed group by group with ``output_norm`` (I,), passes ``out`` (D, I), and
with ``out_bias`` is added to x, times ``branch_scale``. Biases may be None. A segment is (first row, number
of rows, state (H, N, P), tail (K - 1, C)).

``KimiDeltaNet(norm, eps, q, k, v, forget, gate, beta, decay, dt_bias, taps, output_norm, out, *, num_heads,
key_dim, value_dim, lowest_log=0, branch_scale=1)`` (arXiv 2510.26692): as the gated delta net with as many
key heads as value heads H, but each of the Dk rows of S is multiplied by a number of its own, exp(``decay``
softplus(f + ``dt_bias``)), or with a bound exp(``lowest_log`` times the logistic function of -``decay`` (f +
``dt_bias``)), where ``forget`` makes f (H Dk). ``forget`` and ``gate`` are two matrices each, one after the
other, the first of which may be None; what heads make, normed, is multiplied by the logistic function of the
gate. A segment is that of the gated delta net, C = 2 H Dk + H Dv.

``run(x, segments, commits, records=[])`` adds to x (T, D) what its rows make of their texts, and moves the
texts' states on; with ``commits`` false the states stay as they are and x gets the same bits. ``records`` has
an array (T ``record_width``) or None for each segment: a text with one stays as it is too, and what its rows
made is written there. ``replay(record, num_recorded, num_rows, state, tail)`` then moves that text on by the
first ``num_rows`` of those rows, as ``run`` would have. ValueError where shapes do not fit.
"""

from __future__ import annotations

import edgemoe._native as _native

GatedDeltaNet = _native.GatedDeltaNet
KimiDeltaNet = _native.KimiDeltaNet
Mamba2 = _native.Mamba2
ShortConv = _native.ShortConv
