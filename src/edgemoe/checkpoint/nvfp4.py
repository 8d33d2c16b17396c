"""NVFP4 as safetensors hold it: numbers of 4 bits, a float of 8 bits (E4M3) for 16 columns, and one factor.

* compressed-tensors (``nvfp4-pack-quantized``): ``X.weight_packed``, ``X.weight_scale`` and
  ``X.weight_global_scale``, by which numbers are divided; seen as ``X.weight``;
* modelopt: ``X.weight``, ``X.weight_scale`` and ``X.weight_scale_2``, which numbers are multiplied with; of a
  stack of matrices ``X``, ``X_weight_scale`` and ``X_weight_scale_2``.

Letters: E entries, N rows, M columns. Numbers are U8 (E, N, M / 2), scales F8_E4M3 (E, N, M / 16), with or
without the first axis; the factor is one number, or one for each entry. Byte j holds columns 2j (low nibble)
and 2j + 1. Some stacks have inputs before outputs: U8 (E, M / 2, N) and F8_E4M3 (E, M / 16, N), which are the
numbers (E, M, N).

A weight is number times scale times factor. A store's format has a factor of 32 bits for every row, so it
holds all three as they are, where rows are whole blocks of 64. Of compressed-tensors' divisor one over it is
rounded to 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.checkpoint.byte_codes import DTYPE, float8_values
from edgemoe.checkpoint.coded import ReadStored, read_picked
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import FORMAT_TRAITS, ByteArray, FloatArray

FORMAT = "nvfp4"
_SCALE_COLS = 16
_NUMBERS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
# Ends of the names of numbers, scales and factor, and of the name that they are seen as.
_COMPRESSED = (".weight_packed", ".weight_scale", ".weight_global_scale", ".weight")
_MODELOPT = (".weight", ".weight_scale", ".weight_scale_2", ".weight")
_STACKED = ("", "_weight_scale", "_weight_scale_2", "")


@dataclass(frozen=True)
class Nvfp4:
    """Numbers, scales and factor, by the names of their tensors.

    ``is_divided``: by the factor. ``has_inputs_first``: what is packed together are rows, not columns.
    """

    numbers: str
    scales: str
    factor: str
    info: TensorInfo
    num_factors: int
    is_divided: bool = False
    has_inputs_first: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """See CodedTensor."""
        return self.numbers, self.scales, self.factor

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """See CodedTensor."""
        low, high = (start, stop) if not self.has_inputs_first else (start // 16, -(-stop // 16))
        per_scale = _SCALE_COLS // 2 if self.has_inputs_first else 1
        pairs = read(self.numbers, index, low * per_scale, high * per_scale)
        axis = 0 if self.has_inputs_first else 1
        codes = np.stack([pairs & 15, pairs >> 4], axis=axis + 1)
        shape = [n * (2 if i == axis else 1) for i, n in enumerate(pairs.shape)]
        scales = float8_values(read(self.scales, index, low, high)) * self._factor(read, index)
        values = _NUMBERS[codes.reshape(shape)] * np.repeat(scales, _SCALE_COLS, axis)
        first = low * _SCALE_COLS if self.has_inputs_first else low
        return np.ascontiguousarray(values[start - first : stop - first])

    def packed(self, read: ReadStored, index: int | None, rows: NDArray[np.int64]) -> ByteArray:
        """See ExactTensor."""
        numbers, scales = (read_picked(read, name, index, rows) for name in (self.numbers, self.scales))
        factors = np.full(len(rows), self._factor(read, index), np.float32)
        try:
            return native.pack_nvfp4(numbers, scales, factors)
        except ValueError as error:
            raise CheckpointError(f"tensor {self.numbers}: {error}; fetch it again") from error

    def _factor(self, read: ReadStored, index: int | None) -> float:
        found = read(self.factor, index if self.num_factors > 1 else None, 0, 1)
        factor = np.float32(found.reshape(-1)[0])
        if not np.isfinite(factor) or factor == 0:
            raise CheckpointError(f"tensor {self.factor} is {factor}, which scales nothing; fetch it again")
        return float(np.float32(1) / factor if self.is_divided else factor)


def find_nvfp4(tensors: Mapping[str, TensorInfo]) -> dict[str, Nvfp4]:
    """The matrices, and stacks of them, in NVFP4.

    Raises:
        CheckpointError: parts are missing, or do not fit each other.
    """
    found = {}
    for name, info in tensors.items():
        if info.dtype != "U8":
            continue
        for ends in (_COMPRESSED, _MODELOPT, _STACKED):
            stem = name.removesuffix(ends[0])
            scales = tensors.get(stem + ends[1])
            if name.endswith(ends[0]) and scales is not None and scales.dtype == DTYPE:
                found[stem + ends[3]] = _found(tensors, name, stem + ends[1], stem + ends[2])
                break
    return found


def _found(tensors: Mapping[str, TensorInfo], name: str, scales_name: str, factor_name: str) -> Nvfp4:
    if factor_name not in tensors:
        raise CheckpointError(f"there is no {factor_name}, which {name} needs; is a shard missing?")
    info, scales, factor = tensors[name], tensors[scales_name], tensors[factor_name]
    num_factors = int(np.prod(factor.shape, dtype=np.int64))
    has_inputs_first = info.shape[-1] == scales.shape[-1]
    axis = -2 if has_inputs_first else -1
    shape, blocks = list(info.shape), list(scales.shape)
    if len(shape) in (2, 3) and len(blocks) == len(shape):
        shape[axis] *= 2
        blocks[axis] *= _SCALE_COLS
    allowed = (1, shape[0]) if len(shape) == 3 else (1,)
    if shape != blocks or num_factors not in allowed or (num_factors > 1 and factor.shape[0] != shape[0]):
        raise CheckpointError(
            f"tensor {name} has shape {info.shape}, its scales {scales.shape}, its factor {factor.shape}:"
            " they do not fit"
        )
    is_exact = not has_inputs_first and shape[-1] % FORMAT_TRAITS[FORMAT].block_cols == 0
    num_bytes = info.num_bytes + scales.num_bytes + factor.num_bytes
    seen = TensorInfo(tuple(shape), "NVFP4", num_bytes, FORMAT if is_exact else None)
    is_divided = factor_name.endswith(_COMPRESSED[2])
    return Nvfp4(name, scales_name, factor_name, seen, num_factors, is_divided, has_inputs_first)
