"""Matrices with a byte for each number, FP8 (E4M3, finite only) or an integer, and with scales: for blocks of
rows and columns, for rows, or for all.

Letters: E entries of a stack, N rows, M columns. A matrix ``X`` has its scales in ``X_scale_inv``,
``X_scale`` or, where it is a stack, ``X_weight_scale``; whatever the name, numbers are codes times scales.
Scales of bytes are powers of two (E8M0), as MXFP8 has them: one for 32 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.coded import ReadStored, repeated
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import FloatArray

DTYPE = "F8_E4M3"
INTEGER = "I8"
# Types of scales: floats, and powers of two, which are bytes in files of before safetensors had the type.
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E8M0")
_POWERS = "U8"
_POWER_BIAS = 127
USUAL_BLOCK = (128, 128)
MX_BLOCK = (1, 32)
_SCALES = ("_scale_inv", "_scale", "_weight_scale")


def _table() -> FloatArray:
    """The number that each byte stands for: 4 bits of exponent, bias 7, 3 of mantissa."""
    code = np.arange(256)
    sign = np.where(code >> 7, -1.0, 1.0)
    exponent, mantissa = (code >> 3) & 15, code & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * np.exp2(exponent - 7.0))
    size[(code & 127) == 127] = np.nan
    return np.asarray(sign * size, np.float32)


_NUMBERS = _table()


def float8_values(codes: NDArray[np.uint8]) -> FloatArray:
    """The numbers that bytes stand for; NaN where they stand for none."""
    return np.asarray(_NUMBERS[codes], np.float32)


@dataclass(frozen=True)
class ByteCoded:
    """Codes and scales; ``block`` is the size of a block of rows and of columns."""

    name: str
    scale_name: str
    info: TensorInfo
    scale_shape: tuple[int, ...]  # of one matrix
    block: tuple[int, int]
    has_entries: bool = False  # scales are a stack too
    has_powers: bool = False  # scales are exponents

    @property
    def parts(self) -> tuple[str, ...]:
        """See CodedTensor."""
        return self.name, self.scale_name

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """See CodedTensor."""
        codes = read(self.name, index, start, stop)
        numbers = float8_values(codes) if self.info.dtype == DTYPE else codes.astype(np.float32)
        block_rows, block_cols = self.block
        first, last = start // block_rows, -(-stop // block_rows)
        if not self.scale_shape or self.scale_shape[0] == 1:
            first, last = 0, 1
        scales = read(self.scale_name, index if self.has_entries else None, first, last)
        if self.has_powers:
            scales = np.exp2(scales.astype(np.float32) - _POWER_BIAS)
        scales = scales.reshape(max(1, last - first), -1)
        by_row = repeated(scales, block_rows, start, stop - start, axis=0)
        numbers *= repeated(by_row, block_cols, 0, numbers.shape[1], axis=1)
        return numbers


def find_byte_coded(
    tensors: Mapping[str, TensorInfo], blocks: Sequence[tuple[int, int]] = (USUAL_BLOCK,)
) -> dict[str, ByteCoded]:
    """The matrices of bytes of a checkpoint whose blocks, where it has any, are of one of these sizes.

    Integers are only looked at where they have scales.

    Raises:
        CheckpointError: scales are missing, of a type that is none of scales, or do not fit their matrix.
    """
    found = {}
    for name, info in tensors.items():
        if info.dtype not in (DTYPE, INTEGER):
            continue
        scale_name = next((name + end for end in _SCALES if name + end in tensors), None)
        if scale_name is None and info.dtype == DTYPE:
            raise CheckpointError(f"tensor {name} has type {DTYPE} and no scales; fetch the model again")
        if scale_name is not None:
            found[name] = _found(name, info, scale_name, tensors[scale_name], blocks)
    return found


def _found(
    name: str, info: TensorInfo, scale_name: str, scale: TensorInfo, blocks: Sequence[tuple[int, int]]
) -> ByteCoded:
    has_powers = scale.dtype == _POWERS
    if not has_powers and scale.dtype not in _FLOATS:
        raise CheckpointError(
            f"tensor {scale_name} has type {scale.dtype}, which is not read as scales, only floats and bytes"
            " that are exponents are; convert the model it was made from"
        )
    # A stack may have one scale for all of it.
    has_entries = len(info.shape) == 3 and scale.shape[:1] == info.shape[:1]
    own = _plain(scale.shape[1:] if has_entries else scale.shape)
    fitting = [*blocks, *([MX_BLOCK] if has_powers else [])]
    size = _block_size(info.shape[-2:], own, fitting) if len(info.shape) in (2, 3) else None
    if size is None:
        sizes = " or ".join(f"{rows} x {cols}" for rows, cols in fitting)
        raise CheckpointError(
            f"tensor {name} has shape {info.shape}, its scales {scale.shape}: they do not fit blocks of"
            f" {sizes}"
        )
    dtype = DTYPE if info.dtype == DTYPE else "int8"
    seen = TensorInfo(info.shape, dtype, info.num_bytes + scale.num_bytes)
    return ByteCoded(name, scale_name, seen, own, size, has_entries, has_powers)


def _plain(scale: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of length 1 that modelopt has behind those of rows and of columns."""
    return (scale[0], scale[2]) if len(scale) == 4 and scale[1] == scale[3] == 1 else scale


def _block_size(
    shape: tuple[int, ...], scale: tuple[int, ...], blocks: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    """Rows and columns of one matrix that share a scale; None where the shapes do not fit."""
    rows, cols = shape
    if scale in ((), (1,), (1, 1)):
        return rows, cols
    if scale in ((rows,), (rows, 1)):
        return 1, cols
    if scale == (1, cols):  # of stacks whose outputs are columns
        return rows, 1
    return next((b for b in blocks if scale == (-(-rows // b[0]), -(-cols // b[1]))), None)
