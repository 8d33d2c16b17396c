"""Random blocks of every GGUF type that a store holds value for value."""

from __future__ import annotations

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from edgemoe.native import FORMAT_TRAITS

EXACT = [t for t in FORMAT_TRAITS.values() if t.packs_blocks]
# Where the f16 numbers of a block lie.
_HALVES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
    "NVFP4": [], "TQ1_0": [52], "TQ2_0": [64], "IQ1_S": [0], "IQ1_M": [48], "IQ2_XXS": [0], "IQ2_XS": [0],
    "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
}  # fmt: skip


def gguf_type(block_type: str) -> GGMLQuantizationType:
    return GGMLQuantizationType[block_type]


def random_blocks(block_type: str, rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """Blocks of (rows, cols) weights, (rows, bytes of a row): any codes, scales of moderate size."""
    rng = np.random.default_rng(seed)
    block_cols, block_bytes = GGML_QUANT_SIZES[gguf_type(block_type)]
    blocks = rng.integers(0, 256, (rows, cols // block_cols, block_bytes), np.uint8)
    for number in range(num_halves(block_type)):
        halves = rng.normal(0, 0.01, (rows, cols // block_cols)).astype(np.float16)
        _put_halves(blocks, block_type, number, halves)
    if block_type == "NVFP4":  # a scale below the one that stands for no number
        blocks[..., :4] = rng.integers(0, 127, (*blocks.shape[:2], 4))
    if block_type == "TQ1_0":  # the one of several bytes with the same digits that ggml writes
        digits = rng.integers(0, 243, (*blocks.shape[:2], 52))
        digits[..., 48:] -= digits[..., 48:] % 3
        blocks[..., :52] = (256 * digits + 242) // 243
    if block_type == "MXFP4":
        blocks[..., 0] = rng.integers(118, 124, blocks.shape[:2])
    return blocks.reshape(rows, -1)


def put_half(blocks: np.ndarray, block_type: str, row: int, number: int, value: float) -> None:
    """Replace an f16 number of the last block of a row."""
    block_bytes = GGML_QUANT_SIZES[gguf_type(block_type)][1]
    blocks = blocks.reshape(len(blocks), -1, block_bytes)
    _put_halves(blocks[row, -1], block_type, number, np.float16(value))


def _put_halves(blocks: np.ndarray, block_type: str, number: int, halves: np.ndarray | np.float16) -> None:
    """Put f16 numbers (...) into blocks (..., bytes of a block)."""
    offset = _HALVES[block_type][number]
    words = np.asarray(halves).view(np.uint16)
    if block_type == "IQ1_M":  # a nibble in each of four words
        for i in range(4):
            byte = blocks[..., offset + 2 * i + 1]
            byte[...] = byte & 15 | (words >> 4 * i & 15) << 4
        return
    blocks[..., offset], blocks[..., offset + 1] = words & 255, words >> 8


def num_halves(block_type: str) -> int:
    return len(_HALVES[block_type])
