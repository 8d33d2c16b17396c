"""MXFP4 as safetensors hold it: nibbles ``X_blocks`` and exponents ``X_scales``, seen as one tensor
``X_blocks`` of numbers.

Letters: E entries, N rows, M columns. Nibbles are U8 (E, N, M / 32, 16), exponents U8 (E, N, M / 32), both
with or without the first axis; byte j of a block holds columns 2j (low nibble) and 2j + 1. Their meaning is
that of OCP's microscaling specification 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgemoe import native
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import BLOCK, ByteArray, FloatArray

FORMAT = "mxfp4"
_BLOCKS, _SCALES = "_blocks", "_scales"


def exponents_of(name: str) -> str:
    """The tensor with the exponents of one with nibbles."""
    return name.removesuffix(_BLOCKS) + _SCALES


def merge_mxfp4(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors with nibbles, as the numbers that they and their exponents stand for.

    Raises:
        CheckpointError: exponents do not fit their nibbles.
    """
    found = {}
    for name, info in tensors.items():
        exponents = tensors.get(exponents_of(name)) if name.endswith(_BLOCKS) else None
        if exponents is None or info.dtype != "U8" or exponents.dtype != "U8":
            continue
        if info.shape != (*exponents.shape, BLOCK // 2) or len(info.shape) < 3:
            raise CheckpointError(
                f"tensor {name} has shape {info.shape}, its exponents {exponents.shape};"
                " fetch the model again"
            )
        shape = (*info.shape[:-2], info.shape[-2] * BLOCK)
        found[name] = TensorInfo(shape, "MXFP4", info.num_bytes + exponents.num_bytes, FORMAT)
    return found


def pack_mxfp4(name: str, nibbles: ByteArray, exponents: ByteArray) -> ByteArray:
    """Rows of nibbles (R, M / 32, 16) and exponents (R, M / 32) as a store holds them.

    Raises:
        CheckpointError: a weight is not finite.
    """
    try:
        return native.pack_mxfp4(nibbles, exponents)
    except ValueError as error:
        raise CheckpointError(f"tensor {name}: {error}; fetch it again") from error


def mxfp4_values(name: str, nibbles: ByteArray, exponents: ByteArray) -> FloatArray:
    """The numbers (R, M) that rows of nibbles and exponents stand for.

    Raises:
        CheckpointError: one is not finite.
    """
    num_rows, num_blocks = exponents.shape
    return native.dequantize(pack_mxfp4(name, nibbles, exponents), FORMAT, num_rows, num_blocks * BLOCK)
