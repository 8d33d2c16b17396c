"""Packed weight matrices: make them of floats or of other engines' blocks, multiply, look up rows.

Letters: T tokens, N rows, M columns (a multiple of 32), D model width, F expert width.
Every product gives one token the same bits whatever the other tokens of the call and the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import edgemoe._native as _native

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


class FormatTraits(NamedTuple):
    """What is known of a storage format; its row in ``native/kernels/formats.h``."""

    name: str
    bits: int
    """Bits of a code; of a whole value in formats without codes."""
    is_low_bit: bool
    """Codes and scales, multiplied with activations rounded to 8 bits; else floats."""
    is_rounded: bool
    """:func:`quantize` makes it of floats; all others are made of exact blocks alone."""
    is_refined: bool
    """:func:`refine` improves it."""
    block_type: str | None
    """Block type of GGUF that it holds value for value."""
    block_cols: int
    """Row lengths are multiples of it."""
    packs_blocks: bool
    """:func:`pack_blocks` makes it of such blocks."""


FORMAT_TRAITS: dict[str, FormatTraits] = {row[0]: FormatTraits(*row) for row in _native.formats()}
FORMATS: tuple[str, ...] = tuple(FORMAT_TRAITS)
LAYOUT_VERSION: int = _native.LAYOUT_VERSION
ROW_GROUP: int = _native.ROW_GROUP
BLOCK: int = _native.BLOCK


# A packed matrix (N, M): Matrix(packed, format, num_rows, num_cols), which are its attributes too. ``packed``
# may be a view into a larger buffer. ValueError where the shape or the number of bytes does not fit.
Matrix = _native.Matrix


class ExpertWeights(NamedTuple):
    """One expert: gate and up (F, D), down (D, F); some families have no gate."""

    gate: Matrix | None
    up: Matrix
    down: Matrix


class RecordPart(NamedTuple):
    """A matrix (N, M) of an expert's record: bytes [offset, offset + num_bytes)."""

    format: str
    num_rows: int
    num_cols: int
    offset: int
    num_bytes: int


def record_parts(gate: str | None, up: str, down: str, width: int, expert_width: int) -> list[RecordPart]:
    """How gate, if it has a format, up and down of an expert lie in its record, in their order.

    Raises:
        ValueError: unknown format, or one that cannot have rows of such a length.
    """
    return [RecordPart(*part) for part in _native.record_parts((gate, up, down, width, expert_width))]


def packed_num_bytes(format: str, num_rows: int, num_cols: int) -> int:
    """Bytes of a packed (N, M) matrix, a multiple of 64.

    Raises:
        ValueError: unknown format, or a row length that is not a multiple of 32, or of 256 in some formats.
    """
    return _native.packed_num_bytes(format, num_rows, num_cols)


def bits_per_weight(format: str, num_cols: int = 4096) -> float:
    """Effective bits per weight, scales included, for rows of ``num_cols``."""
    return packed_num_bytes(format, ROW_GROUP, num_cols) * 8 / (ROW_GROUP * num_cols)


def quantize(weights: FloatArray, format: str, importance: FloatArray | None = None) -> ByteArray:
    """Pack float32 weights (N, M); returns bytes (packed_num_bytes,).

    ``importance`` (M,) weighs the squared error per column, for instance by the mean square of the
    activations. Rows may be packed in chunks: the packed form of rows [a, b), a and b multiples of
    ``ROW_GROUP``, is a contiguous slice of the whole.

    Raises:
        ValueError: shapes do not fit, or the format is made of exact blocks alone.
    """
    packed = np.empty(packed_num_bytes(format, *weights.shape), np.uint8)
    _native.quantize_into(weights, format, importance, packed)
    return packed


def pack_blocks(blocks: ByteArray, format: str, num_cols: int) -> ByteArray:
    """Pack rows (N, bytes of a row) of GGUF blocks of the format's type; no weight changes its value.

    Rows may be packed in chunks, as they may be quantised.

    Raises:
        ValueError: shapes do not fit, or a weight is not finite.
    """
    packed = np.empty(packed_num_bytes(format, len(blocks), num_cols), np.uint8)
    _refuse_infinite(_native.pack_blocks_into(blocks, format, num_cols, packed))
    return packed


def pack_mxfp4(nibbles: ByteArray, exponents: ByteArray) -> ByteArray:
    """Pack MXFP4 weights as checkpoints hold them; no weight changes its value.

    Byte j of the nibbles (N, M / 32, 16) holds columns 2j (low) and 2j + 1 of a block, ``exponents``
    (N, M / 32) the powers of two plus 127. Rows may be packed in chunks, as they may be quantised.

    Raises:
        ValueError: shapes do not fit, or a weight is not finite.
    """
    packed = np.empty(packed_num_bytes("mxfp4", len(exponents), exponents.shape[1] * BLOCK), np.uint8)
    _refuse_infinite(_native.pack_mxfp4_into(nibbles, exponents, packed))
    return packed


def pack_nvfp4(nibbles: ByteArray, scales: ByteArray, factors: FloatArray) -> ByteArray:
    """Pack NVFP4 weights as checkpoints hold them; no weight changes its value.

    Byte j of the nibbles (N, M / 2) holds columns 2j (low) and 2j + 1, ``scales`` (N, M / 16) are floats of
    8 bits (E4M3) for 16 columns each, ``factors`` (N,) float32 is what all of a row is multiplied with. Rows
    may be packed in chunks, as they may be quantised.

    Raises:
        ValueError: shapes do not fit, or a weight is not finite.
    """
    packed = np.empty(packed_num_bytes("nvfp4", len(nibbles), nibbles.shape[1] * 2), np.uint8)
    _refuse_infinite(_native.pack_nvfp4_into(nibbles, scales, factors, packed))
    return packed


def row_factors(matrix: Matrix) -> FloatArray:
    """What all weights of each row of an nvfp4 matrix are multiplied with, (N,); blocks do not hold it."""
    groups = matrix.packed.reshape(-(-matrix.num_rows // ROW_GROUP), -1)
    return np.ascontiguousarray(groups[:, : 4 * ROW_GROUP]).view(np.float32).ravel()[: matrix.num_rows]


def set_row_factors(packed: ByteArray, num_rows: int, factor: float) -> None:
    """Give all rows of packed nvfp4, in place, the factor that their blocks do not hold."""
    groups = packed.reshape(-(-num_rows // ROW_GROUP), -1)[:, : 4 * ROW_GROUP].view(np.float32)
    rows = np.arange(num_rows)
    groups[rows // ROW_GROUP, rows % ROW_GROUP] = factor


def written_type(format: str, num_cols: int) -> str | None:
    """The GGUF block type that :func:`write_blocks` makes of rows of this length; None: it makes none.

    Of exact formats it is their own. Of our rounded ones it is one that holds the same codes, with scales
    rounded to what its blocks have: Q4_1 for q4, Q6_K for q2, q3 and q6.
    """
    return _native.written_type(format, num_cols)


def write_blocks(matrix: Matrix, num_bytes_of_row: int) -> ByteArray:
    """Rows (N, bytes of a row) of blocks of ``written_type``; the inverse of :func:`pack_blocks`.

    Raises:
        ValueError: there is no such type, or the bytes of a row are not those of its blocks.
    """
    blocks = np.empty((matrix.num_rows, num_bytes_of_row), np.uint8)
    _native.write_blocks_into(matrix, blocks)
    return blocks


def _refuse_infinite(row: int) -> None:
    if row >= 0:
        raise ValueError(f"row {row} holds weights that are not finite")


def refine(weights: FloatArray, format: str, gram: FloatArray, packed: ByteArray) -> None:
    """Improve the packed form of weights (N, M) in place: codes are chosen for the error of products.

    ``gram`` (M, M), symmetric with a positive diagonal, is the mean of x^T x over inputs x; the squared error
    of each row's products with them falls or stays. Coordinate descent on codes and row bases (QuantEase,
    arXiv 2309.01885), for formats of up to 6 bits. Rows may be refined in chunks, as they may be packed.

    Raises:
        ValueError: shapes do not fit, the format has no codes to choose, or the diagonal is not positive.
    """
    _native.refine_into(weights, format, gram, packed)


def dequantize_rows(matrix: Matrix, rows: NDArray[np.int32]) -> FloatArray:
    """Rows (R,) of a matrix as floats (R, M); the embedding lookup.

    Raises:
        ValueError: a row is outside the matrix.
    """
    out = np.empty((len(rows), matrix.num_cols), np.float32)
    _native.dequantize_rows_into(matrix, rows, out)
    return out


def dequantize(packed: ByteArray, format: str, num_rows: int, num_cols: int) -> FloatArray:
    """The float32 weights (N, M) that packed bytes stand for."""
    rows = np.arange(num_rows, dtype=np.int32)
    return dequantize_rows(Matrix(packed, format, num_rows, num_cols), rows)


def matmul(x: FloatArray, matrix: Matrix, out: FloatArray | None = None) -> FloatArray:
    """Product of activations (T, M) with the transposed matrix: (T, N).

    Low-bit formats quantise ``x`` to 8 bits per block of 32 on the fly; f32, f16 and bf16 do not.

    Raises:
        ValueError: shapes do not fit.
    """
    if out is None:
        out = np.empty((len(x), matrix.num_rows), np.float32)
    _native.matmul_into(x, matrix, out)
    return out


def expert_ffns(
    x: FloatArray,
    experts: Sequence[tuple[Matrix | None, Matrix, Matrix]],
    rows: Sequence[list[int]],
    activation: str,
    out: FloatArray,
) -> None:
    """Several experts (gate, up, down) of one size, each for its rows of x (T, D), in one go.

    All have a gate or none. What :func:`expert_ffn` gives, with its bits, goes to ``out``, one expert's rows
    after the other's.

    Raises:
        ValueError: shapes do not fit or the activation is unknown.
    """
    _native.expert_ffns_into(x, experts, rows, activation, out)


def expert_ffn(
    x: FloatArray,
    gate: Matrix | None,
    up: Matrix,
    down: Matrix,
    activation: str = "silu",
    out: FloatArray | None = None,
    rows: NDArray[np.int32] | None = None,
    biases: FloatArray | None = None,
) -> FloatArray:
    """One expert: ``down(act(gate(x)) * up(x))`` for x (T, D), or for those ``rows`` of it; returns (T, D).

    gate and up are (F, D), down is (D, F). Without a gate: ``down(act(up(x)))``.
    ``activation`` is "silu", "gelu" (exact), "gelu_tanh", "relu", "relu2" (squared) or, with a gate:

    * "clamped_swiglu:limit:alpha" (gpt-oss): g / (1 + exp(-alpha g)) (u + 1) for the gate g of at most the
      limit and up u between minus the limit and the limit;
    * "clamped_glu:gate_limit:limit:alpha:raise": the same with a limit for each and u + raise;
    * "capped_swiglu:gate_cap:cap": gate_cap tanh(g / gate_cap) / (1 + exp(-g)) cap tanh(u / cap).

    ``biases`` are added to the products: F of the gate, if any, F of up and D of down, one after the other.

    Raises:
        ValueError: shapes do not fit or the activation is unknown.
    """
    if out is None:
        out = np.empty((len(x if rows is None else rows), down.num_rows), np.float32)
    _native.expert_ffn_into(x, gate, up, down, activation, rows, biases, out)
    return out
