"""Blocks of GGUF written again: the bytes that were packed, or blocks that hold our own codes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from helpers.exact_blocks import EXACT, gguf_type, random_blocks

from edgemoe import native

# Scales are rounded where our blocks become GGUF's: to f16 in Q4_1; in Q6_K to whole numbers of which the
# largest is at least 64, so that what is smaller than it by far loses most.
CARRIED = {"q4": ("Q4_1", 1e-3), "q6": ("Q6_K", 5e-3), "q3": ("Q6_K", 1e-2), "q2": ("Q6_K", 1e-2)}


@pytest.mark.parametrize("traits", EXACT, ids=[t.name for t in EXACT])
def test_exact_formats_give_back_the_bytes_that_were_packed(traits):
    for rows, cols in ((1, traits.block_cols), (17, 3 * traits.block_cols), (33, 512)):
        blocks = random_blocks(traits.block_type, rows, cols, seed=rows)
        packed = native.pack_blocks(blocks, traits.name, cols)
        written = native.write_blocks(native.Matrix(packed, traits.name, rows, cols), blocks.shape[1])
        assert native.written_type(traits.name, cols) == traits.block_type
        assert np.array_equal(written, blocks)


def test_factors_of_rows_are_told_apart_from_blocks():
    """NVFP4's blocks have no place for them."""
    rng = np.random.default_rng(2)
    numbers, scales = rng.integers(0, 256, (20, 64), np.uint8), rng.integers(0, 127, (20, 8), np.uint8)
    factors = rng.uniform(0.1, 1, 20).astype(np.float32)
    matrix = native.Matrix(native.pack_nvfp4(numbers, scales, factors), "nvfp4", 20, 128)
    assert np.array_equal(native.row_factors(matrix), factors)
    plain = gguf.dequantize(native.write_blocks(matrix, 72), gguf_type("NVFP4"))
    found = native.dequantize(matrix.packed, "nvfp4", 20, 128)
    np.testing.assert_allclose(found, plain * factors[:, None], rtol=2e-7)
    # A scale may have a sign: that of its numbers.
    turned = native.pack_nvfp4(numbers, scales | 128, factors)
    assert np.array_equal(native.dequantize(turned, "nvfp4", 20, 128), -found)


@pytest.mark.parametrize("format", CARRIED)
def test_rounded_formats_keep_their_codes(format):
    block_type, bound = CARRIED[format]
    rng = np.random.default_rng(1)
    weights = (rng.standard_t(4, (50, 512)) * 0.02).astype(np.float32)
    packed = native.quantize(weights, format)
    assert native.written_type(format, 512) == block_type
    num_values, num_bytes = gguf.GGML_QUANT_SIZES[gguf_type(block_type)]
    blocks = native.write_blocks(native.Matrix(packed, format, 50, 512), 512 // num_values * num_bytes)
    before = native.dequantize(packed, format, 50, 512)
    after = gguf.dequantize(blocks, gguf_type(block_type))
    assert np.linalg.norm(after - before) <= bound * np.linalg.norm(before)


def test_rows_that_are_no_whole_blocks_have_no_type():
    assert native.written_type("q6", 96) is None
    assert native.written_type("q4", 96) == "Q4_1"
    assert native.written_type("bf16", 256) is None
    matrix = native.Matrix(native.quantize(np.ones((4, 96), np.float32), "q6"), "q6", 4, 96)
    with pytest.raises(ValueError, match="has no blocks for rows of this length"):
        native.write_blocks(matrix, 210)
    eight = native.Matrix(native.quantize(np.ones((4, 96), np.float32), "q8"), "q8", 4, 96)
    with pytest.raises(ValueError, match="bytes of a row is 100, expected 102"):
        native.write_blocks(eight, 100)
