"""What norms, routers, attention and activations mean, in NumPy: slow, readable, and the oracle of the tests.

Follows native/ops/ops.h. Letters as in ops.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgemoe.native.matrix import FloatArray


def rms_norm(x: FloatArray, weight: FloatArray, eps: float) -> NDArray[np.float64]:
    """Root-mean-square norm of rows (T, D)."""
    x64 = x.astype(np.float64)
    return np.asarray(x64 / np.sqrt((x64**2).mean(axis=1, keepdims=True) + eps) * weight)


def route(
    logits: FloatArray,
    top_k: int,
    score: str,
    *,
    choice_bias: FloatArray | None = None,
    expert_scale: FloatArray | None = None,
    num_groups: int = 1,
    kept_groups: int = 1,
    groups_by_highest: bool = False,
    renormalize: bool = False,
    sum_eps: float = 0.0,
    is_eps_minimum: bool = False,
    scale: float = 1.0,
    jitter: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Experts and weights (T, K) of logits (T, E), and the scores (T, E) that they are chosen by."""
    x = logits.astype(np.float64)
    own = {"softmax": _softmax(x), "sigmoid": 1 / (1 + np.exp(-x))}.get(score, x)
    choice = own if choice_bias is None else own + choice_bias
    groups = choice.reshape(len(x), num_groups, -1)
    of_groups = np.sort(groups, axis=2)[:, :, -1 if groups_by_highest else -2 :].sum(axis=2)
    kept = np.argsort(-of_groups, axis=1, kind="stable")[:, :kept_groups]
    is_kept = (kept[:, :, None] == np.arange(num_groups)).any(axis=1)
    choice = np.where(is_kept[:, :, None], groups, -np.inf).reshape(x.shape)
    ids = np.argsort(-choice, axis=1, kind="stable")[:, :top_k]
    if score == "sparse_mixer":
        return ids, _sparse_mixer(x, ids, jitter), choice
    weights = np.take_along_axis(own, ids, axis=1)
    if score == "softmax_of_picked":
        weights = _softmax(weights)
    if renormalize:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / (np.maximum(total, sum_eps) if is_eps_minimum else total + sum_eps)
    weights = weights * scale
    return ids, weights if expert_scale is None else weights * expert_scale[ids], choice


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _sparse_mixer(x: NDArray[np.float64], ids: NDArray[np.int64], jitter: float) -> NDArray[np.float64]:
    """Weights (T, K) of the highest and the second highest, each among those near it that are left."""
    weights = np.zeros(ids.shape)
    left = x.copy()
    for k in range(ids.shape[1]):
        highest = left.max(axis=1, keepdims=True)
        is_near = (highest - x) / np.maximum(np.abs(x), highest) <= 2 * jitter
        near = _softmax(np.where(is_near, left, -np.inf))
        weights[:, k] = np.take_along_axis(near, ids[:, k : k + 1], axis=1)[:, 0]
        np.put_along_axis(left, ids[:, k : k + 1], -np.inf, axis=1)
    return weights


def latent_attention(
    q: FloatArray, latents: FloatArray, k_b: FloatArray, v_b: FloatArray, rotary_dim: int, scale: float
) -> NDArray[np.float64]:
    """What H heads find, (T, H, C), of queries q (T, H, N + R), rotated in their last R entries.

    Each of the latents (T, L + R) makes every head's keys by k_b (H, N, L) and values by v_b (H, C, L).
    """
    plain = q.shape[2] - rotary_dim
    latent = latents[:, : latents.shape[1] - rotary_dim].astype(np.float64)
    keys = np.einsum("hnl,sl->shn", k_b, latent)
    values = np.einsum("hcl,sl->shc", v_b, latent)
    scores = np.einsum("thn,shn->hts", q[:, :, :plain], keys)
    scores = scale * (scores + np.einsum("thr,sr->hts", q[:, :, plain:], latents[:, -rotary_dim:]))
    scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.asarray(np.einsum("hts,shc->thc", p / p.sum(axis=2, keepdims=True), values))


def rope(x: FloatArray, cos: FloatArray, sin: FloatArray) -> NDArray[np.float64]:
    """Rotated heads (T, H, C)."""
    pairs = cos.shape[1]
    out = x.astype(np.float64)
    first, second = x[..., :pairs].astype(np.float64), x[..., pairs : 2 * pairs].astype(np.float64)
    c, s = cos[:, None, :], sin[:, None, :]
    out[..., :pairs] = first * c - second * s
    out[..., pairs : 2 * pairs] = second * c + first * s
    return out


def attention(
    q: FloatArray,
    keys: NDArray[np.floating],
    values: NDArray[np.floating],
    start: int,
    scale: float,
    window: int = 0,
    num_keys: int = 0,
    bias: FloatArray | None = None,
    sinks: FloatArray | None = None,
) -> NDArray[np.float64]:
    """Grouped-query attention (T, H, C), causal unless the number of keys is given."""
    num_tokens, num_heads, _ = q.shape
    out = np.zeros(q.shape, np.float64)
    for t in range(num_tokens):
        position = start + t
        first = max(0, position - window + 1) if window > 0 else 0
        end = num_keys or position + 1
        for h in range(num_heads):
            g = h * keys.shape[0] // num_heads
            seen = slice(first, end)
            scores = scale * (keys[g, seen].astype(np.float64) @ q[t, h].astype(np.float64))
            if bias is not None:
                scores += bias[h, bias.shape[1] // 2 - position + np.arange(first, end)]
            sink = -np.inf if sinks is None else float(sinks[h])
            top = max(scores.max(), sink)
            p = np.exp(scores - top)
            out[t, h] = (p / (p.sum() + np.exp(sink - top))) @ values[g, seen].astype(np.float64)
    return out


def activate(name: str, gate: NDArray[np.float64], up: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The inner values of a network, as ``native.expert_ffn`` names what is done with them."""
    kind, *numbers = name.split(":")
    if kind in ("clamped_swiglu", "clamped_glu"):
        assert up is not None, f"{kind} needs a gate"
        if kind == "clamped_swiglu":
            numbers = [numbers[0], *numbers, "1"]
        gate_limit, limit, alpha, raised_by = map(float, numbers)
        gate, up = np.minimum(gate, gate_limit), np.clip(up, -limit, limit)
        return np.asarray(gate / (1 + np.exp(-alpha * gate)) * (up + raised_by))
    if kind == "capped_swiglu":
        assert up is not None, f"{kind} needs a gate"
        gate_cap, cap = map(float, numbers)
        bent = gate_cap * np.tanh(gate / gate_cap) / (1 + np.exp(-gate))
        return np.asarray(bent * cap * np.tanh(up / cap))
    rules: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
        "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
        "relu": lambda x: np.maximum(x, 0),
        "relu2": lambda x: np.maximum(x, 0) ** 2,
    }
    inner = rules[name](gate)
    return inner if up is None else inner * up
