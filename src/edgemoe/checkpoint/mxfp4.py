"""MXFP4 as safetensors hold it, in one of two forms:

* nibbles ``X_blocks`` and exponents ``X_scales``, seen as one tensor ``X_blocks`` of numbers, as gpt-oss is
  published: U8 (E, N, M / 32, 16) and U8 (E, N, M / 32), both with or without the first axis;
* compressed-tensors' ``X.weight_packed`` U8 (N, M / 2) and ``X.weight_scale`` U8 (N, M / 32), seen as
  ``X.weight``.

Letters: E entries, N rows, M columns. Byte j of a block of 32 columns holds columns 2j (low nibble) and
2j + 1. Their meaning is that of OCP's microscaling specification 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.checkpoint.coded import ReadStored, read_picked
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import BLOCK, ByteArray, FloatArray

FORMAT = "mxfp4"
_BLOCKS, _SCALES = "_blocks", "_scales"
_PACKED, _SCALE = ".weight_packed", ".weight_scale"


@dataclass(frozen=True)
class Mxfp4:
    """Nibbles and exponents, by the names of their tensors."""

    nibbles: str
    exponents: str
    info: TensorInfo

    @property
    def parts(self) -> tuple[str, ...]:
        """See CodedTensor."""
        return self.nibbles, self.exponents

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """See CodedTensor."""
        packed = self.packed(read, index, np.arange(start, stop))
        return native.dequantize(packed, FORMAT, stop - start, self.info.shape[-1])

    def packed(self, read: ReadStored, index: int | None, rows: NDArray[np.int64]) -> ByteArray:
        """See ExactTensor."""
        nibbles, exponents = (read_picked(read, name, index, rows) for name in self.parts)
        try:
            return native.pack_mxfp4(nibbles.reshape(*exponents.shape, BLOCK // 2), exponents)
        except ValueError as error:
            raise CheckpointError(f"tensor {self.nibbles}: {error}; fetch it again") from error


def find_mxfp4(tensors: Mapping[str, TensorInfo]) -> dict[str, Mxfp4]:
    """The matrices, and stacks of them, in MXFP4.

    Raises:
        CheckpointError: exponents do not fit their nibbles.
    """
    found = {}
    for name, info in tensors.items():
        if name.endswith(_BLOCKS):
            seen, exponents = name, name.removesuffix(_BLOCKS) + _SCALES
        else:
            seen, exponents = name.removesuffix(_PACKED) + ".weight", name.removesuffix(_PACKED) + _SCALE
        scales = tensors.get(exponents)
        if not name.endswith((_BLOCKS, _PACKED)) or scales is None or {info.dtype, scales.dtype} != {"U8"}:
            continue
        num_blocks = scales.shape[-1]
        in_blocks, in_rows = (num_blocks, BLOCK // 2), (num_blocks * BLOCK // 2,)
        columns = in_blocks if name.endswith(_BLOCKS) else in_rows
        if info.shape != (*scales.shape[:-1], *columns) or len(scales.shape) < 2:
            raise CheckpointError(
                f"tensor {name} has shape {info.shape}, its exponents {scales.shape}; fetch the model again"
            )
        shape = (*scales.shape[:-1], num_blocks * BLOCK)
        num_bytes = info.num_bytes + scales.num_bytes
        found[seen] = Mxfp4(name, exponents, TensorInfo(shape, "MXFP4", num_bytes, FORMAT))
    return found
