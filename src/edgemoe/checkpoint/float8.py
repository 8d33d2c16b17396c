"""FP8 matrices (E4M3, finite only) with scales: for blocks of rows and columns, for rows, or for all.

Letters: E entries of a stack, N rows, M columns. A matrix ``X`` has its scales in ``X_scale_inv``,
``X_scale`` or, where it is a stack, ``X_weight_scale``; whatever the name, numbers are codes times scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.coded import ReadStored, repeated
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import FloatArray

DTYPE = "F8_E4M3"
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
class Float8:
    """Codes and scales; ``block`` is the size of a block of rows and of columns."""

    name: str
    scale_name: str
    info: TensorInfo
    scale_shape: tuple[int, ...]  # of one matrix
    block: tuple[int, int]
    has_entries: bool = False  # scales are a stack too

    @property
    def parts(self) -> tuple[str, ...]:
        """See CodedTensor."""
        return self.name, self.scale_name

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """See CodedTensor."""
        numbers = float8_values(read(self.name, index, start, stop))
        block_rows, block_cols = self.block
        first, last = start // block_rows, -(-stop // block_rows)
        if not self.scale_shape or self.scale_shape[0] == 1:
            first, last = 0, 1
        scales = read(self.scale_name, index if self.has_entries else None, first, last)
        scales = scales.reshape(max(1, last - first), -1)
        by_row = repeated(scales, block_rows, start, stop - start, axis=0)
        numbers *= repeated(by_row, block_cols, 0, numbers.shape[1], axis=1)
        return numbers


def find_float8(tensors: Mapping[str, TensorInfo], block: tuple[int, int] = (128, 128)) -> dict[str, Float8]:
    """The FP8 matrices of a checkpoint whose blocks, where it has any, are of this size.

    Raises:
        CheckpointError: scales are missing, or do not fit their matrix.
    """
    found = {}
    for name, info in tensors.items():
        if info.dtype != DTYPE:
            continue
        scale_name = next((name + end for end in _SCALES if name + end in tensors), None)
        if scale_name is None:
            raise CheckpointError(f"tensor {name} has type {DTYPE} and no scales; fetch the model again")
        scale = tensors[scale_name]
        num_bytes = info.num_bytes + scale.num_bytes
        # A stack may have one scale for all of it.
        has_entries = len(info.shape) == 3 and scale.shape[:1] == info.shape[:1]
        own = _plain(scale.shape[1:] if has_entries else scale.shape)
        size = _block_size(info.shape[-2:], own, block) if len(info.shape) in (2, 3) else None
        if size is None:
            raise CheckpointError(
                f"tensor {name} has shape {info.shape}, its scales {scale.shape}: they do not fit blocks of"
                f" {block[0]} x {block[1]}"
            )
        seen = TensorInfo(info.shape, DTYPE, num_bytes)
        found[name] = Float8(name, scale_name, seen, own, size, has_entries)
    return found


def _plain(scale: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of length 1 that modelopt has behind those of rows and of columns."""
    return (scale[0], scale[2]) if len(scale) == 4 and scale[1] == scale[3] == 1 else scale


def _block_size(
    shape: tuple[int, ...], scale: tuple[int, ...], block: tuple[int, int]
) -> tuple[int, int] | None:
    """Rows and columns of one matrix that share a scale; None where the shapes do not fit."""
    rows, cols = shape
    if scale in ((), (1,), (1, 1)):
        return rows, cols
    if scale in ((rows,), (rows, 1)):
        return 1, cols
    if scale == (-(-rows // block[0]), -(-cols // block[1])):
        return block
    return None
