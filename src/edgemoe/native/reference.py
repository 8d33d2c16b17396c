"""What every packed format means, in NumPy: slow, readable, and the oracle of the tests.

Follows native/kernels/layout.h. Letters as in matrix.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemoe.native.grid_reference import GRIDS, grid_values, nibbles
from edgemoe.native.matrix import BLOCK, FORMAT_TRAITS, ROW_GROUP, ByteArray, FloatArray

_CHUNK = 64
_ALIGNMENT = 64
_SUPER_BLOCKS = 8
_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
# Values of trellis codes (t2, t3), their positive half, and scales of 4 bits.
_T2 = np.array([1, 4, 8, 15], np.float32)
_T3 = np.array([1, 3, 5, 7, 10, 13, 18, 22], np.float32)
_TRELLIS = {name: np.concatenate([-half[::-1], half]) for name, half in (("t2", _T2), ("t3", _T3))}
NIBBLE_SCALES = np.array([0, 16, 19, 23, 28, 35, 42, 52, 63, 77, 94, 115, 140, 171, 209, 255], np.float32)
# Bits of a byte in which quads 0 to 7 have their path bits, and their own one or two bits.
_PATH_BITS, _OWN_BITS = (0, 4, 2, 6, 1, 5, 3, 7), {"t2": (2, 6, 1, 5, 3, 7, 0, 4), "t3": (0, 4, 2, 6) * 2}
_TABLES = {"mxfp4": _E2M1, "nvfp4": _E2M1, "iq4_nl": _IQ4, "iq4_xs": _IQ4}
_WITH_BASE = ("q2", "q3", "q4", "q6", "t2", "t3")
# Bytes of 16 rows: of the scales of a block, and of what the blocks of 256 columns share.
_SCALE_BYTES = {
    "t2": 8,
    "t3": 8,
    "mxfp4": 16,
    "iq4_xs": 16,
    "q3_k": 24,
    "q4_k": 24,
    "q5_k": 24,
    "q4_1": 64,
    "q5_1": 64,
}
_SHARED_BYTES = {"iq4_xs": 32, "q6_k": 32, "q3_k": 32, "q2_k": 64, "q4_k": 64, "q5_k": 64}
# Taken off every code.
_ZEROS = {"q8": 128, "q6": 32, "q4_0": 8, "q5_0": 16, "q3_k": 4, "q6_k": 32, "tq1_0": 1, "tq2_0": 1}


_SHARED_BYTES |= dict.fromkeys(("tq1_0", "tq2_0", *GRIDS), 32)
_SCALE_BYTES |= {"tq1_0": 0, "tq2_0": 0, **{name: grid.scale_bytes for name, grid in GRIDS.items()}}


class _Scale(NamedTuple):
    """A weight is scale * (value - zero) - minimum; each (16 rows, 1, 2 or 32 columns)."""

    scale: FloatArray
    zero: FloatArray | float = 0.0
    minimum: FloatArray | float = 0.0


def dequantize(packed: ByteArray, format: str, num_rows: int, num_cols: int) -> FloatArray:
    """The weights (N, M) of a packed matrix."""
    num_groups = -(-num_rows // ROW_GROUP)
    groups = packed.reshape(num_groups, -1)
    if FORMAT_TRAITS[format].is_low_bit:
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
    base_format = "f32" if format == "nvfp4" else "bf16"
    base_bytes = 4 * ROW_GROUP if format == "nvfp4" else 2 * ROW_GROUP if format in _WITH_BASE else 0
    scale_bytes, shared_bytes = _SCALE_BYTES.get(format, 32), _SHARED_BYTES.get(format, 0)
    unpadded = base_bytes + num_blocks * scale_bytes + num_blocks // _SUPER_BLOCKS * shared_bytes
    header = -(-unpadded // _ALIGNMENT) * _ALIGNMENT
    base = (
        _values(group[:base_bytes], base_format)[:, None]
        if base_bytes
        else np.ones((ROW_GROUP, 1), np.float32)
    )
    codes = group[header:].reshape(num_blocks, -1)
    blocks = []
    for i in range(num_blocks):
        shared = base_bytes + i // _SUPER_BLOCKS * (shared_bytes + _SUPER_BLOCKS * scale_bytes)
        own = shared + shared_bytes + i % _SUPER_BLOCKS * scale_bytes
        found = _scale(format, group[shared : shared + shared_bytes], group[own : own + scale_bytes])
        scale, zero, minimum = (_wide(np.asarray(part, np.float32)) for part in found)
        values = _block_values(codes[i], format, group[own : own + scale_bytes])
        blocks.append(base * scale * (values - zero) - minimum)
    return np.concatenate(blocks, axis=1)


def _scale(format: str, shared: ByteArray, own: ByteArray) -> _Scale:
    """Scales of a block, from its own bytes and those that it shares with others of its 256 columns."""
    zero = float(_ZEROS.get(format, 0))
    halves = own[: len(own) // ROW_GROUP * ROW_GROUP].reshape(-1, ROW_GROUP).T  # a byte a row and half
    super_scale, super_minimum = (_values(part, "f16")[:, None] for part in (shared[:32], shared[32:]))
    match format:
        case "q8" | "q4_0" | "q5_0" | "iq4_nl":
            return _Scale(_values(own, "f16")[:, None], zero)
        case "q4_1" | "q5_1":
            return _Scale(_values(own[:32], "f16")[:, None], zero, _values(own[32:], "f16")[:, None])
        case "mxfp4":  # the table has doubled values
            return _Scale(np.exp2(own.astype(np.float32) - 128)[:, None])
        case "q4":
            return _Scale(_minifloat(halves[:, :1], 4, 15), np.asarray(halves[:, 1:] / 16, np.float32))
        case "q6":
            return _Scale(_minifloat(halves, 4, 15), zero)
        case "q2" | "q3":
            first = 0.5 if format == "q2" else 2.5
            return _Scale(
                _minifloat(halves >> np.uint8(3), 2, 7), np.float32(first) + (halves & 7) / np.float32(4)
            )
        case "t2" | "t3":
            return _Scale(NIBBLE_SCALES[nibbles(own)][:, None])
        case "nvfp4":  # the table has doubled values
            return _Scale(_ue4m3(halves) / np.float32(2))
        case "tq1_0" | "tq2_0":
            return _Scale(super_scale, zero)
        case _ if format in GRIDS:
            return _Scale(super_scale * GRIDS[format].scales(own))
        case "iq4_xs" | "q6_k":
            return _Scale(super_scale * (halves.astype(np.float32) - 128), zero)
        case "q2_k":
            return _Scale(super_scale * (halves & 15), zero, super_minimum * (halves >> 4))
        case "q3_k":
            return _Scale(super_scale * (_six_bits(own) - 32), zero)
        case _:
            scale, minimum = np.split(_six_bits(own), 2, axis=1)
            return _Scale(super_scale * scale, zero, super_minimum * minimum)


def _six_bits(own: ByteArray) -> FloatArray:
    """The two 6-bit numbers of each row (16, 2) of the 24 bytes of a block."""
    low = nibbles(own[ROW_GROUP:])
    return np.stack([own[:ROW_GROUP] & 63, own[:ROW_GROUP] >> 6 << 4 | low], axis=1).astype(np.float32)


def _ue4m3(code: ByteArray) -> FloatArray:
    mantissa = (code & 7).astype(np.float32) / 8
    exponent = (code >> 3).astype(np.float32)
    value = np.where(exponent == 0, mantissa * 2**-6, (1 + mantissa) * np.exp2(exponent - 7))
    return np.asarray(value, np.float32)


def _minifloat(code: ByteArray, mantissa_bits: int, bias: int) -> FloatArray:
    exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    value = (1 + mantissa / (1 << mantissa_bits)) * np.exp2(exponent.astype(np.float32) - bias)
    return np.asarray(value, np.float32)


def _wide(part: FloatArray) -> FloatArray:
    """One number a row or half, for every column of a block."""
    return part if part.ndim == 0 else np.repeat(part, BLOCK // part.shape[1], axis=1)


def _block_values(data: ByteArray, format: str, own: ByteArray) -> FloatArray:
    """What the codes of a block stand for, (16, 32); a grid's have more bits with its own scales."""
    if format in GRIDS:
        return grid_values(data, format, own)
    if format in _TRELLIS:
        return _trellis_values(data.reshape(-1, ROW_GROUP, 4), format)
    codes = _codes(data, FORMAT_TRAITS[format].bits)
    return _TABLES[format][codes] if format in _TABLES else codes.astype(np.float32)


def _trellis_values(chunks: ByteArray, format: str) -> FloatArray:
    """What a block of trellis codes stands for, (16, 32), from its chunks (C, 16 rows, 4 columns)."""
    quads = []
    for g in range(8):
        # By number in the cycle: columns first.
        path = ((chunks[0] >> _PATH_BITS[g]) & 1).T.ravel()
        after = {k: np.roll(path, -k) for k in (1, 2, 4, 6)}
        subset = 2 * (path ^ after[1] ^ after[6]) + (after[2] ^ after[4])
        own = chunks[1] if format == "t2" else chunks[1 + g // 4]
        number = 4 * ((own >> _OWN_BITS[format][g]) & (1 if format == "t2" else 3)) + subset.reshape(4, -1).T
        quads.append(_TRELLIS[format][number])
    return np.concatenate(quads, axis=1)


def _codes(data: ByteArray, bits: int) -> ByteArray:
    """Codes (16, 32) of a block; quad g of 4 columns is an array [16 rows][4 columns]."""
    chunks = data.reshape(-1, _CHUNK)
    quads = []
    for g in range(8):
        if bits == 8:
            code = chunks[g]
        elif bits < 4:
            code = (chunks[g // 4] >> 2 * (g % 4)) & 3
        else:
            code = (chunks[g % 4] >> (0 if g < 4 else 4)) & 15
        if bits in (3, 5):
            code = code | ((chunks[bits - 1] >> g) & 1) << (bits - 1)
        if bits == 6:
            code = code | ((chunks[4 + g // 4] >> 2 * (g % 4)) & 3) << 4
        quads.append(code.reshape(ROW_GROUP, 4))
    return np.concatenate(quads, axis=1)


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
    seen = quantize_activations(x) if FORMAT_TRAITS[format].is_low_bit else x
    return np.asarray(seen.astype(np.float64) @ weights.astype(np.float64).T)
