"""What every kernel means, in NumPy: slow, readable, and the oracle of the tests.

Follows native/kernels/layout.h and native/ops/ops.h. Letters as in matrix.py and ops.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgemoe.native.matrix import BLOCK, ROW_GROUP, ByteArray, FloatArray

_CODE_BITS = {"q2": 2, "q3": 3, "q4": 4, "q6": 6, "q8": 8}
_FIRST_ZERO = {"q2": 0.5, "q3": 2.5}
_CHUNK = 64
_ALIGNMENT = 64


def dequantize(packed: ByteArray, format: str, num_rows: int, num_cols: int) -> FloatArray:
    """The weights (N, M) of a packed matrix."""
    num_groups = -(-num_rows // ROW_GROUP)
    groups = packed.reshape(num_groups, -1)
    if format in _CODE_BITS:
        rows = np.concatenate([_low_bit_group(group, format, num_cols) for group in groups])
    else:
        rows = np.concatenate([_values(group, format).reshape(num_cols, ROW_GROUP).T for group in groups])
    return np.ascontiguousarray(rows[:num_rows], np.float32)


def _values(data: ByteArray, format: str) -> FloatArray:
    if format == "bf16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(np.float16 if format == "f16" else np.float32).astype(np.float32)


def _low_bit_group(group: ByteArray, format: str, num_cols: int) -> FloatArray:
    """Weights (16, M) of one row group."""
    num_blocks = num_cols // BLOCK
    base_bytes = 0 if format == "q8" else 2 * ROW_GROUP
    header = -(-(base_bytes + num_blocks * 32) // _ALIGNMENT) * _ALIGNMENT
    base = np.ones(ROW_GROUP, np.float32) if format == "q8" else _values(group[:base_bytes], "bf16")
    scales = group[base_bytes : base_bytes + num_blocks * 32].reshape(num_blocks, 32)
    codes = group[header:].reshape(num_blocks, -1)
    blocks = []
    for block_scales, block_codes in zip(scales, codes, strict=True):
        scale, zero = _scale_and_zero(block_scales, format)
        blocks.append(base[:, None] * scale * (_codes(block_codes, format) - zero))
    return np.concatenate(blocks, axis=1)


def _scale_and_zero(scales: ByteArray, format: str) -> tuple[FloatArray, FloatArray]:
    """Scale and zero (16, 32) of every weight of a block."""
    first, second = scales[:ROW_GROUP], scales[ROW_GROUP:]
    if format == "q8":
        return _wide(_values(scales, "f16")), np.full((ROW_GROUP, BLOCK), 128, np.float32)
    if format == "q4":
        return _wide(_minifloat(first, 4, 15)), _wide(np.asarray(second / 16, np.float32))
    halves = np.stack([first, second], axis=1)  # (16 rows, 2 halves)
    if format == "q6":
        return _halves(_minifloat(halves, 4, 15)), np.full((ROW_GROUP, BLOCK), 32, np.float32)
    zero = np.asarray(_FIRST_ZERO[format] + (halves & 7) / 4, np.float32)
    return _halves(_minifloat(halves >> np.uint8(3), 2, 7)), _halves(zero)


def _minifloat(code: ByteArray, mantissa_bits: int, bias: int) -> FloatArray:
    exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    value = (1 + mantissa / (1 << mantissa_bits)) * np.exp2(exponent.astype(np.float32) - bias)
    return np.asarray(value, np.float32)


def _wide(per_row: FloatArray) -> FloatArray:
    return np.repeat(per_row[:, None], BLOCK, axis=1)


def _halves(per_half: FloatArray) -> FloatArray:
    return np.repeat(per_half, BLOCK // 2, axis=1)


def _codes(data: ByteArray, format: str) -> FloatArray:
    """Codes (16, 32) of a block; quad g of 4 columns is an array [16 rows][4 columns]."""
    chunks = data.reshape(-1, _CHUNK)
    quads = []
    for g in range(8):
        if format == "q8":
            code = chunks[g]
        elif format in ("q2", "q3"):
            code = (chunks[g // 4] >> 2 * (g % 4)) & 3
        else:
            code = (chunks[g % 4] >> (0 if g < 4 else 4)) & 15
        if format == "q3":
            code = code | ((chunks[2] >> g) & 1) << 2
        if format == "q6":
            code = code | ((chunks[4 + g // 4] >> 2 * (g % 4)) & 3) << 4
        quads.append(code.reshape(ROW_GROUP, 4))
    return np.concatenate(quads, axis=1).astype(np.float32)


def quantize_activations(x: FloatArray) -> FloatArray:
    """X (T, M) rounded to 8 bits per block of 32, as floats: what low-bit kernels multiply with."""
    blocks = x.reshape(len(x), -1, BLOCK)
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    scale = largest / 127
    codes = np.where(largest > 1e-35, np.rint(blocks * (127 / np.maximum(largest, 1e-35))), 0)
    return np.asarray((codes * scale).reshape(x.shape), np.float32)


def matmul(x: FloatArray, packed: ByteArray, format: str, num_rows: int) -> NDArray[np.float64]:
    """Product (T, N) in double precision of what the kernel really multiplies."""
    weights = dequantize(packed, format, num_rows, x.shape[1])
    seen = quantize_activations(x) if format in _CODE_BITS else x
    return np.asarray(seen.astype(np.float64) @ weights.astype(np.float64).T)


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
    if name.startswith("clamped_swiglu"):
        assert up is not None, "clamped_swiglu needs a gate"
        limit, alpha = map(float, name.split(":")[1:])
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
        return np.asarray(gate / (1 + np.exp(-alpha * gate)) * (up + 1))
    rules: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
        "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
        "relu": lambda x: np.maximum(x, 0),
        "relu2": lambda x: np.maximum(x, 0) ** 2,
    }
    inner = rules[name](gate)
    return inner if up is None else inner * up
