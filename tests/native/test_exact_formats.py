"""Exact formats: what GGUF's blocks hold is held value for value, and multiplied by the same kernels."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from helpers.exact_blocks import EXACT, gguf_type, num_halves, put_half, random_blocks
from helpers.tolerances import dot_bound

from edgemoe import native
from edgemoe.native import reference
from edgemoe.store import checksum

EVERY_TYPE = pytest.mark.parametrize("traits", EXACT, ids=[t.name for t in EXACT])


def packed_matrix(traits, rows, cols, seed=0):
    blocks = random_blocks(traits.block_type, rows, cols, seed)
    return native.Matrix(native.pack_blocks(blocks, traits.name, cols), traits.name, rows, cols)


def shapes(traits):
    """Single blocks, and last groups and blocks of 256 columns that are not full where a format allows it."""
    return [(1, traits.block_cols), (17, 3 * traits.block_cols), (33, 512 + traits.block_cols)]


@EVERY_TYPE
def test_weights_are_those_of_gguf_bit_for_bit(traits):
    for rows, cols in shapes(traits):
        blocks = random_blocks(traits.block_type, rows, cols, seed=rows)
        expected = gguf.dequantize(blocks, gguf_type(traits.block_type))
        packed = native.pack_blocks(blocks, traits.name, cols)
        actual = native.dequantize(packed, traits.name, rows, cols)
        assert np.array_equal(actual, expected)
        assert np.array_equal(reference.dequantize(packed, traits.name, rows, cols), expected)


@EVERY_TYPE
def test_products_are_those_of_the_weights(isa, traits):
    for rows, cols in shapes(traits):
        matrix = packed_matrix(traits, rows, cols, seed=rows)
        x = np.random.default_rng(1).standard_normal((9, cols)).astype(np.float32)
        weights = reference.dequantize(matrix.packed, traits.name, rows, cols)
        # Scale times code and what is taken off are added apart: both may be as large as the row's largest.
        spread = np.abs(weights) + 2 * np.abs(weights).max(axis=1, keepdims=True)
        seen = reference.quantize_activations(x)
        expected = reference.matmul(x, matrix.packed, traits.name, rows)
        assert np.all(np.abs(native.matmul(x, matrix) - expected) <= dot_bound(spread, seen))


@EVERY_TYPE
def test_a_token_has_the_same_bits_in_any_company(isa, traits):
    matrix = packed_matrix(traits, 50, 512)
    x = np.random.default_rng(2).standard_normal((21, 512)).astype(np.float32)
    whole = native.matmul(x, matrix)
    single = np.concatenate([native.matmul(x[t : t + 1], matrix) for t in range(len(x))])
    assert np.array_equal(whole, single)


@EVERY_TYPE
def test_row_chunks_pack_to_slices_of_the_whole(traits):
    blocks = random_blocks(traits.block_type, 50, 512)
    parts = [native.pack_blocks(blocks[i : i + 16], traits.name, 512) for i in range(0, 50, 16)]
    assert np.array_equal(np.concatenate(parts), native.pack_blocks(blocks, traits.name, 512))


@EVERY_TYPE
def test_the_largest_codes_and_scales_do_not_overflow(isa, traits):
    """With activations of one sign at their largest, sums of 16 bits come nearest to their limit."""
    for fill in (0xFF, 0x00, 0x7F, 0x80):
        blocks = np.full_like(random_blocks(traits.block_type, 16, 512), fill)
        for start in range(0, blocks.shape[1], blocks.shape[1] * traits.block_cols // 512):
            block = blocks[:, start : start + blocks.shape[1] * traits.block_cols // 512]
            for number in range(num_halves(traits.block_type)):
                put_half(block, traits.block_type, slice(None), number, 0.01 * (1 + number))
            if traits.block_type == "MXFP4":
                block[:, 0] = 120
            if traits.block_type == "NVFP4":
                block[:, :4] = 0x7E
        packed = native.pack_blocks(blocks, traits.name, 512)
        matrix = native.Matrix(packed, traits.name, 16, 512)
        for sign in (1, -1):
            x = np.full((2, 512), sign, np.float32)
            expected = reference.matmul(x, packed, traits.name, 16)
            size = np.abs(reference.dequantize(packed, traits.name, 16, 512)).sum(axis=1)
            assert np.all(np.abs(native.matmul(x, matrix) - expected) <= 1e-5 * (1 + size))


@EVERY_TYPE
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite_are_refused_with_their_row(traits, value):
    for number in range(num_halves(traits.block_type)):
        blocks = random_blocks(traits.block_type, 40, 512)
        put_half(blocks, traits.block_type, 37, number, value)
        put_half(blocks, traits.block_type, 21, number, value)
        with pytest.raises(ValueError, match="row 21 holds weights that are not finite"):
            native.pack_blocks(blocks, traits.name, 512)


def test_every_exponent_of_mxfp4_is_exact_or_refused(isa):
    codes = np.tile(np.arange(16, dtype=np.uint8), 2)
    nibbles = (codes[:16] | codes[16:] << 4).reshape(1, -1)
    for exponent in range(256):
        row = np.concatenate([np.full((1, 1), exponent, np.uint8), nibbles], axis=1)
        if exponent > 252:
            with pytest.raises(ValueError, match="row 0 holds weights that are not finite"):
                native.pack_blocks(row, "mxfp4", 32)
            continue
        packed = native.pack_blocks(row, "mxfp4", 32)
        expected = gguf.dequantize(row, gguf.GGMLQuantizationType.MXFP4)
        assert np.array_equal(native.dequantize(packed, "mxfp4", 1, 32), expected)
        x = np.zeros((1, 32), np.float32)
        x[0, 1] = 1  # a weight of a half
        product = native.matmul(x, native.Matrix(packed, "mxfp4", 1, 32))
        assert np.allclose(product, expected[0, 1], rtol=1e-6, atol=0)


def test_every_scale_of_nvfp4_is_exact_or_refused(isa):
    nibbles = (np.arange(32, dtype=np.uint8) % 16) * 17
    for scale in range(256):
        row = np.concatenate([np.full(4, scale, np.uint8), nibbles])[None]
        if scale % 128 == 127:
            with pytest.raises(ValueError, match="row 0 holds weights that are not finite"):
                native.pack_blocks(row, "nvfp4", 64)
            continue
        packed = native.pack_blocks(row, "nvfp4", 64)
        expected = gguf.dequantize(row, gguf.GGMLQuantizationType.NVFP4)
        assert np.array_equal(native.dequantize(packed, "nvfp4", 1, 64), expected)
        x = np.zeros((1, 64), np.float32)
        x[0, 1] = 1
        product = native.matmul(x, native.Matrix(packed, "nvfp4", 1, 64))
        assert np.allclose(product, expected[0, 1], rtol=1e-6, atol=0)


def test_every_point_of_every_grid_is_that_of_gguf():
    """Blocks that count through the numbers of points, with both signs of each column."""
    for traits in EXACT:
        if not traits.block_type.startswith(("IQ1", "IQ2", "IQ3")):
            continue
        blocks = random_blocks(traits.block_type, 512, 512, seed=5)
        weights = native.dequantize(native.pack_blocks(blocks, traits.name, 512), traits.name, 512, 512)
        assert np.array_equal(weights, gguf.dequantize(blocks, gguf_type(traits.block_type)))


def test_large_exponents_of_mxfp4_hold_small_codes():
    for exponent, largest in ((253, 5), (254, 3)):
        for code in range(8):
            row = np.full((1, 17), code | code << 4, np.uint8)
            row[0, 0] = exponent
            if code <= largest:
                weights = native.dequantize(native.pack_blocks(row, "mxfp4", 32), "mxfp4", 1, 32)
                assert np.array_equal(weights, gguf.dequantize(row, gguf.GGMLQuantizationType.MXFP4))
            else:
                with pytest.raises(ValueError, match="not finite"):
                    native.pack_blocks(row, "mxfp4", 32)


# Checksums of the packed form of the blocks below. Stores hold these bytes: none may ever change.
GOLDEN = {
    "q8": "877c42635aac5c98",
    "mxfp4": "19a998136bed57aa",
    "q4_0": "bed0ecc6d4eca32c",
    "q4_1": "3ddd2635bef9e98c",
    "q5_0": "4417e8a51674f5d0",
    "q5_1": "86273810aba8f39a",
    "q2_k": "cbb7a8adc7a5b31b",
    "q3_k": "6614f51835b177e1",
    "q4_k": "077ce5b9f8a3ab1a",
    "q5_k": "4fd502a80be86ecf",
    "q6_k": "217b7da6bed3be14",
    "iq4_nl": "bed0ecc6d4eca32c",
    "iq4_xs": "e47d9d428f89fea4",
    "nvfp4": "64a0b5ca3cb7467f",
    "tq1_0": "3c90e0185dc26027",
    "tq2_0": "81983b90d8c5c1cf",
    "iq1_s": "27f9d82cde8ae9e3",
    "iq1_m": "575a5e935a87a349",
    "iq2_xxs": "5bd86ec276aa2c7d",
    "iq2_xs": "b899ee39090ca625",
    "iq2_s": "ceba96fbf55740cd",
    "iq3_xxs": "25653f7c236ad67a",
    "iq3_s": "d1baf6b611c371c5",
}


@EVERY_TYPE
def test_the_packed_form_never_changes(traits):
    size = 512 // traits.block_cols * gguf.GGML_QUANT_SIZES[gguf_type(traits.block_type)][1]
    steps = np.arange(20 * size, dtype=np.uint64)
    # Without bit 2 of any byte no f16 is infinite; nor is one of four nibbles without bit 6.
    mask = 0xBB if traits.block_type == "IQ1_M" else 0xFB
    blocks = (steps * steps * 2654435761 >> 13 & mask).astype(np.uint8).reshape(20, size)
    assert checksum(native.pack_blocks(blocks, traits.name, 512)) == GOLDEN[traits.name]


def test_mxfp4_of_checkpoints_is_that_of_gguf():
    """Checkpoints have neighbouring columns in a byte, GGUF columns that are half a block apart."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (33, 4, 32), np.uint8)
    exponents = rng.integers(110, 130, (33, 4), np.uint8)
    ours = native.pack_mxfp4(codes[..., 0::2] | codes[..., 1::2] << 4, exponents)
    blocks = np.concatenate([exponents[..., None], codes[..., :16] | codes[..., 16:] << 4], axis=2)
    assert np.array_equal(ours, native.pack_blocks(blocks.reshape(33, -1), "mxfp4", 128))


def test_mxfp4_is_what_transformers_reads():
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    rng = np.random.default_rng(1)
    nibbles = rng.integers(0, 256, (1, 32, 3, 16), np.uint8)
    exponents = rng.integers(110, 130, (1, 32, 3), np.uint8)
    expected = mxfp4.convert_moe_packed_tensors(
        torch.from_numpy(nibbles), torch.from_numpy(exponents), dtype=torch.float32
    )
    actual = native.dequantize(native.pack_mxfp4(nibbles[0], exponents[0]), "mxfp4", 32, 96)
    assert np.array_equal(actual, expected[0].numpy().T)


def test_what_is_no_block_of_the_format_is_refused():
    blocks = random_blocks("Q4_K", 4, 512)
    with pytest.raises(ValueError, match="row length 288 is not a multiple of 256"):
        native.pack_blocks(blocks, "q4_k", 288)
    with pytest.raises(ValueError, match="bytes of a row is 288, expected 144"):
        native.pack_blocks(blocks, "q4_k", 256)
    with pytest.raises(ValueError, match="format q4 is not made of blocks"):
        native.pack_blocks(blocks, "q4", 512)
    with pytest.raises(ValueError, match="format q4_k is made of exact blocks alone"):
        native.quantize(np.zeros((16, 256), np.float32), "q4_k")
    with pytest.raises(ValueError, match="row length 32 is not a multiple of 256"):
        native.Matrix(np.zeros(16 * 18, np.uint8), "q4_k", 16, 32)


def test_experts_of_exact_formats_have_the_bits_of_single_calls(isa):
    up, down = packed_matrix(EXACT[2], 256, 512, 1), packed_matrix(EXACT[-3], 512, 256, 2)
    x = np.random.default_rng(4).standard_normal((1, 512)).astype(np.float32)
    out = np.empty((2, 512), np.float32)
    native.expert_ffns(x, [(up, up, down), (up, up, down)], [[0], [0]], "silu", out)
    assert np.array_equal(out[0], native.expert_ffn(x, up, up, down, "silu")[0])
    assert np.array_equal(out[1], out[0])
