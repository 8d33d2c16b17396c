"""What the mixers of fixed state compute, in NumPy and double precision: their meaning, and tests' oracle.

Letters as in the classes of native.mixers. Each takes a text from its beginning and gives what is added to x
(T, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.native.matrix import FloatArray
from edgemoe.native.ops_reference import rms_norm

Double = NDArray[np.float64]


def causal_conv(x: Double, taps: FloatArray, bias: FloatArray | None = None) -> Double:
    """Each channel of x (T, C) over a token and K - 1 before it; taps (K, C), the last for the token."""
    padded = np.concatenate([np.zeros((len(taps) - 1, x.shape[1])), x])
    sums = sum(padded[j : j + len(x)] * taps[j].astype(np.float64) for j in range(len(taps)))
    return np.asarray(sums if bias is None else sums + bias)


def silu(x: Double) -> Double:
    """X times the logistic function of x."""
    return np.asarray(x / (1 + np.exp(-x)))


def gated_delta_net(
    x: FloatArray,
    weights: Mapping[str, FloatArray],
    heads: tuple[int, int],
    dims: tuple[int, int],
    eps: float,
) -> Double:
    """``weights`` by the names of ``GatedDeltaNet``'s arguments; ``heads`` Hk, Hv and ``dims`` Dk, Dv."""
    (num_keys, num_values), (key_dim, value_dim) = heads, dims
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    normed = rms_norm(x, weights["norm"], eps)
    mixed = silu(causal_conv(normed @ w["qkv"].T, weights["taps"]))
    q, k, v = np.split(mixed, [num_keys * key_dim, 2 * num_keys * key_dim], axis=1)

    def of_length_one(heads: Double) -> Double:
        rows = heads.reshape(len(x), num_keys, key_dim)
        rows = rows / np.sqrt((rows**2).sum(-1, keepdims=True) + 1e-6)
        return np.asarray(np.repeat(rows, num_values // num_keys, axis=1))

    queries, keys = of_length_one(q) * key_dim**-0.5, of_length_one(k)
    values = v.reshape(len(x), num_values, value_dim)
    beta = 1 / (1 + np.exp(-normed @ w["beta"].T))
    decay = np.exp(w["decay"] * np.log1p(np.exp(normed @ w["alpha"].T + w["dt_bias"])))
    state = np.zeros((num_values, key_dim, value_dim))
    found = np.empty((len(x), num_values, value_dim))
    for t in range(len(x)):
        state *= decay[t, :, None, None]
        error = values[t] - np.einsum("hkv,hk->hv", state, keys[t])
        state += np.einsum("hk,hv->hkv", keys[t], beta[t, :, None] * error)
        found[t] = np.einsum("hkv,hk->hv", state, queries[t])
    found /= np.sqrt((found**2).mean(-1, keepdims=True) + eps)
    gated = (found * w["output_norm"]).reshape(len(x), -1) * silu(normed @ w["z"].T)
    return np.asarray(gated @ w["out"].T)


def short_conv(x: FloatArray, weights: Mapping[str, FloatArray | None], eps: float) -> Double:
    """``weights`` by the names of ``ShortConv``'s arguments, biases None or not."""
    norm, into, taps, out = (weights[name] for name in ("norm", "in_", "taps", "out"))
    assert norm is not None
    assert into is not None
    assert taps is not None
    assert out is not None

    def plus(y: Double, name: str) -> Double:
        bias = weights[name]
        return y if bias is None else np.asarray(y + bias)

    parts = plus(rms_norm(x, norm, eps) @ into.astype(np.float64).T, "in_bias")
    before, after, values = np.split(parts, 3, axis=1)
    mixed = after * causal_conv(before * values, taps, weights["conv_bias"])
    return plus(mixed @ out.astype(np.float64).T, "out_bias")


def mamba2(
    x: FloatArray,
    weights: Mapping[str, FloatArray | None],
    sizes: tuple[int, int, int, int],
    limits: tuple[float, float],
    eps: float,
) -> Double:
    """``weights`` by the names of ``Mamba2``'s arguments; ``sizes`` H, P, G, N; ``limits`` of a step."""
    num_heads, head_dim, num_groups, state_dim = sizes
    inner, groups = num_heads * head_dim, num_groups * state_dim
    w = {name: values.astype(np.float64) for name, values in weights.items() if values is not None}
    normed = rms_norm(x, w["norm"].astype(np.float32), eps)
    projected = normed @ np.concatenate([w["z"], w["mixed"], w["steps"]]).T + w.get("in_bias", 0)
    z, channels, steps = np.split(projected, [inner, 2 * inner + 2 * groups], axis=1)
    mixed = silu(causal_conv(channels, w["taps"].astype(np.float32), weights["conv_bias"]))
    values, along, query = np.split(mixed, [inner, inner + groups], axis=1)

    def of_heads(y: Double) -> Double:
        return np.repeat(y.reshape(len(x), num_groups, state_dim), num_heads // num_groups, axis=1)

    values, along, query = values.reshape(len(x), num_heads, head_dim), of_heads(along), of_heads(query)
    dt = np.clip(np.log1p(np.exp(steps + w["dt_bias"])), *limits)
    state = np.zeros((num_heads, state_dim, head_dim))
    found = np.empty((len(x), num_heads, head_dim))
    for t in range(len(x)):
        state *= np.exp(dt[t] * w["decay"])[:, None, None]
        state += np.einsum("hn,hp->hnp", along[t], dt[t, :, None] * values[t])
        found[t] = np.einsum("hnp,hn->hp", state, query[t]) + w["skip"][:, None] * values[t]
    gated = (found.reshape(len(x), inner) * silu(z)).reshape(len(x), num_groups, -1)
    gated /= np.sqrt((gated**2).mean(-1, keepdims=True) + eps)
    return np.asarray((gated.reshape(len(x), inner) * w["output_norm"]) @ w["out"].T + w.get("out_bias", 0))


def kimi_delta_net(
    x: FloatArray,
    weights: Mapping[str, Any],
    heads: int,
    dims: tuple[int, int],
    lowest_log: float,
    eps: float,
) -> Double:
    """``weights`` by the names of ``KimiDeltaNet``'s arguments, forget and gate in twos; ``dims`` Dk, Dv."""
    key_dim, value_dim = dims
    w = {n: np.asarray(v, np.float64) for n, v in weights.items() if n not in ("forget", "gate")}
    normed = rms_norm(x, weights["norm"], eps).astype(np.float64)

    def through(two: tuple[FloatArray | None, FloatArray]) -> Double:
        first, second = two
        between = normed if first is None else normed @ first.astype(np.float64).T
        return np.asarray(between @ second.astype(np.float64).T)

    projected = normed @ np.concatenate([w["q"], w["k"], w["v"]]).T
    mixed = silu(causal_conv(projected, weights["taps"]))
    q, k, v = np.split(mixed, [heads * key_dim, 2 * heads * key_dim], axis=1)

    def of_length_one(y: Double) -> Double:
        rows = y.reshape(len(x), heads, key_dim)
        return np.asarray(rows / np.sqrt((rows**2).sum(-1, keepdims=True) + 1e-6))

    queries, keys = of_length_one(q) * key_dim**-0.5, of_length_one(k)
    values = v.reshape(len(x), heads, value_dim)
    beta = 1 / (1 + np.exp(-normed @ w["beta"].T))
    steps = (through(weights["forget"]) + w["dt_bias"]).reshape(len(x), heads, key_dim)
    rate = w["decay"][:, None]
    bounded = lowest_log / (1 + np.exp(rate * steps))
    decay = np.exp(bounded if lowest_log else rate * np.log1p(np.exp(steps)))
    state = np.zeros((heads, key_dim, value_dim))
    found = np.empty((len(x), heads, value_dim))
    for t in range(len(x)):
        state *= decay[t, :, :, None]
        error = values[t] - np.einsum("hkv,hk->hv", state, keys[t])
        state += np.einsum("hk,hv->hkv", keys[t], beta[t, :, None] * error)
        found[t] = np.einsum("hkv,hk->hv", state, queries[t])
    found /= np.sqrt((found**2).mean(-1, keepdims=True) + eps)
    gates = 1 / (1 + np.exp(-through(weights["gate"])))
    return np.asarray(((found * w["output_norm"]).reshape(len(x), -1) * gates) @ w["out"].T)
