"""Packed matrices → the bytes of GGUF block types: the same blocks where a type holds the format's values.

Letters: N rows, M columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgemoe import native
from edgemoe.errors import RequestError
from edgemoe.native import ROW_GROUP, ByteArray, FloatArray, Matrix

# Floats held at a time where blocks are made of values.
_CHUNK_FLOATS = 4 << 20
_FLOATS = ("f32", "f16", "bf16")
# What holds values of every format with little loss, 0.5 % of a Gaussian's.
USUAL_TYPE = "Q8_0"


def choose_type(formats: Iterable[str], num_cols: int, asked: str | None = None) -> str:
    """The block type of a tensor whose parts have these formats.

    Where one type holds the codes of all of them it is that one; with floats among them it is the widest of
    these. Rows that are no whole blocks are floats. ``asked``: the type that everything is to have.

    Raises:
        RequestError: rows of this length are no whole blocks of the type asked for.
    """
    names = set(formats)
    floats = [name for name in _FLOATS if name in names]
    if asked is not None:
        num_values, _ = block_size(asked)
        if num_cols % num_values:
            raise RequestError(f"rows of {num_cols} are no whole blocks of {asked}; choose another --type")
        return asked
    if floats:
        return floats[0].upper()
    written = {native.written_type(name, num_cols) or USUAL_TYPE for name in names}
    chosen = written.pop() if len(written) == 1 else USUAL_TYPE
    return "F16" if num_cols % block_size(chosen)[0] else chosen


def block_size(block_type: str) -> tuple[int, int]:
    """Values and bytes of a block."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[block_type]]


def row_num_bytes(block_type: str, num_cols: int) -> int:
    """Bytes of a row (M,)."""
    num_values, num_bytes = block_size(block_type)
    return num_cols // num_values * num_bytes


def check_writable(block_type: str) -> str:
    """The name of a type that values can be made into, as gguf has it.

    Raises:
        RequestError: there is no such type, or the library only reads it.
    """
    from gguf import GGMLQuantizationType

    writable = [name for name in GGMLQuantizationType.__members__ if _can_write(name)]
    if block_type.upper() not in writable:
        raise RequestError(f"--type {block_type}: choose one of {', '.join(writable).lower()}")
    return block_type.upper()


def _can_write(block_type: str) -> bool:
    """Whether the library makes blocks of values, by trying it."""
    try:
        of_values(np.zeros((1, block_size(block_type)[0]), np.float32), block_type)
    except NotImplementedError:
        return False
    return True


@dataclass
class Rounding:
    """What has become of weights, by "format → type"; measured on the first rows of every matrix."""

    num_matrices: dict[str, int] = field(default_factory=dict)
    _squares: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, change: str, before: FloatArray, after: FloatArray) -> None:
        """Count a matrix whose first rows were and became this."""
        self.num_matrices[change] = self.num_matrices.get(change, 0) + 1
        difference, whole = self._squares.get(change, (0.0, 0.0))
        self._squares[change] = (
            difference + float(np.square(after - before, dtype=np.float64).sum()),
            whole + float(np.square(before, dtype=np.float64).sum()),
        )

    def relative(self) -> dict[str, float]:
        """Root mean square of the change over that of the weights; 0 where none changed."""
        return {k: math.sqrt(change / max(whole, 1e-30)) for k, (change, whole) in self._squares.items()}


def to_blocks(matrix: Matrix, block_type: str, rounding: Rounding, factor: float = 1.0) -> ByteArray:
    """Rows (N, bytes of a row) of a matrix in a block type, all but a factor that the file has elsewhere."""
    num_bytes = row_num_bytes(block_type, matrix.num_cols)
    if native.written_type(matrix.format, matrix.num_cols) == block_type:
        blocks = native.write_blocks(matrix, num_bytes)
    else:
        blocks = np.empty((matrix.num_rows, num_bytes), np.uint8)
        for start, values in row_chunks(matrix):
            blocks[start : start + len(values)] = of_values(values, block_type)
    before = _head(matrix, has_factor=factor == 1)
    rounding.note(f"{matrix.format} → {block_type}", before, values_of(blocks[: len(before)], block_type))
    return blocks


def _head(matrix: Matrix, *, has_factor: bool) -> FloatArray:
    """The first rows; ``has_factor``: else without what nvfp4 multiplies them with."""
    num_rows = min(ROW_GROUP, matrix.num_rows)
    if has_factor:
        return native.dequantize_rows(matrix, np.arange(num_rows, dtype=np.int32))
    packed = matrix.packed[: native.packed_num_bytes(matrix.format, num_rows, matrix.num_cols)].copy()
    native.set_row_factors(packed, num_rows, 1.0)
    return native.dequantize(packed, matrix.format, num_rows, matrix.num_cols)


def row_chunks(matrix: Matrix) -> Iterator[tuple[int, FloatArray]]:
    """The values of a matrix in order, some rows at a time, each with the number of the first."""
    step = max(1, _CHUNK_FLOATS // matrix.num_cols)
    for start in range(0, matrix.num_rows, step):
        rows = np.arange(start, min(start + step, matrix.num_rows), dtype=np.int32)
        yield start, native.dequantize_rows(matrix, rows)


def of_values(values: FloatArray, block_type: str) -> ByteArray:
    """Rows (N, bytes of a row) of floats (N, M)."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    blocks = np.ascontiguousarray(quantize(values, GGMLQuantizationType[block_type]))
    return blocks.view(np.uint8).reshape(len(values), -1)


def values_of(blocks: ByteArray, block_type: str) -> FloatArray:
    """Floats (N, M) of rows of blocks."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return np.asarray(dequantize(np.ascontiguousarray(blocks), GGMLQuantizationType[block_type]), np.float32)
