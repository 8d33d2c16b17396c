"""Rows of floats → symmetric integers of 4 or 8 bits with a scale for each group of columns, as
compressed-tensors packs them.

A weight is its code times the scale of its group. Codes go from -2^(bits - 1) up to 2^(bits - 1) - 1; they
are packed with half of that range added, the lowest bits first. Scales are bf16, which is what programs that
run such checkpoints compute with; they are rounded before codes are chosen, so that codes fit what is stored.

Letters: N rows, M columns, G groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemoe.native import ByteArray, FloatArray

# Columns with a scale of their own. vLLM takes 32, 64 and 128. By 32, a Gaussian changes by 8.6 % in 4 bits;
# by 128 it is 10.1 %, for 0.375 bits less of each weight.
GROUP_COLS = 32
# The largest weight of a group becomes one of these codes; the best is kept. Of 4 bits it pays to cut off the
# largest a little, and the code -8 is there for one that is negative.
_LARGEST = {4: (7.0, 7.4, 7.8, 8.2, 8.7, 9.3), 8: (127.0, 127.5, 128.0)}

Codes = NDArray[np.int8]
Words = NDArray[np.uint16]


def to_integers(values: FloatArray, bits: int) -> tuple[Codes, Words]:
    """Codes (N, M) and scales (N, G), the words of bf16, of values (N, M) whose rows are whole groups.

    For each group the scale with the least squared change of its weights, of a few that are tried: each puts
    the largest weight somewhere, and what fits the codes that follow best is taken.
    """
    groups = values.reshape(-1, GROUP_COLS)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    largest = np.abs(groups).max(axis=1, keepdims=True)
    best = to_bf16(largest / high)
    least = np.full(largest.shape, np.inf, np.float32)
    for code in _LARGEST[bits]:
        tried = _codes(groups, largest / np.float32(code), low, high)
        product = np.einsum("ij,ij->i", groups, tried)[:, None]
        square = np.einsum("ij,ij->i", tried, tried)[:, None]
        words = to_bf16(product / np.maximum(square, 1))
        scale = of_bf16(words)
        # The squared change, less the sum of the squared weights, which is the same for all.
        change = scale * (scale * square - 2 * product)
        best = np.where(change < least, words, best)
        least = np.minimum(change, least)
    codes = _codes(groups, of_bf16(best), low, high).astype(np.int8)
    return codes.reshape(values.shape), best.reshape(len(values), -1)


def of_integers(codes: Codes, scales: Words) -> FloatArray:
    """The values (N, M) that codes and scales stand for."""
    groups = codes.reshape(*scales.shape, GROUP_COLS).astype(np.float32) * of_bf16(scales)[..., None]
    return np.asarray(groups, np.float32).reshape(codes.shape)


def packed(codes: Codes, bits: int) -> ByteArray:
    """The bytes of words of 32 bits (N, M bits / 8) that hold codes (N, M)."""
    raised = (codes.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    if bits == 8:
        return raised
    return np.asarray(raised[:, 0::2] | raised[:, 1::2] << 4, np.uint8)


def to_bf16(values: FloatArray) -> Words:
    """Floats rounded to the nearest bf16, the even one of two."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)


def of_bf16(words: Words) -> FloatArray:
    """The floats that words of bf16 stand for."""
    return (words.astype(np.uint32) << 16).view(np.float32)


def _codes(groups: FloatArray, scales: FloatArray, low: int, high: int) -> FloatArray:
    """The nearest codes by these scales, as floats; 0 where a group has nothing but zeros."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    return np.clip(np.rint(groups * inverse), low, high)
