"""Symmetric integers with a scale for each group: numbers to check by hand, and the library's own."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.export.integers import GROUP_COLS, of_bf16, of_integers, packed, to_bf16, to_integers


def change(values, codes, scales):
    return np.sqrt(np.square(of_integers(codes, scales) - values).sum() / np.square(values).sum())


@pytest.mark.parametrize("bits", [4, 8])
def test_values_that_are_codes_times_a_scale_come_back_bit_for_bit(bits):
    rng = np.random.default_rng(1)
    half = 1 << (bits - 1)
    codes = rng.integers(-half, half, (6, 2 * GROUP_COLS))
    codes[:, ::GROUP_COLS] = half - 1  # so that the whole range is in every group
    scales = np.array([0.5, 2.0**-30, 3.0, 2.0**-7, 1.5, 1.0], np.float32)[:, None]
    values = (codes * scales).astype(np.float32)
    found, words = to_integers(values, bits)
    assert np.array_equal(found, codes)
    assert np.array_equal(of_bf16(words), np.broadcast_to(scales, words.shape))


def test_zeros_stay_zeros():
    codes, scales = to_integers(np.zeros((2, GROUP_COLS), np.float32), 4)
    assert not codes.any()
    assert not of_integers(codes, scales).any()


def test_the_largest_may_be_negative():
    """-8 is a code and 8 is none: a group with -8 and 7 keeps both."""
    values = np.zeros((1, GROUP_COLS), np.float32)
    values[0, :3] = (-8, 7, 1)
    codes, scales = to_integers(values, 4)
    assert np.array_equal(of_integers(codes, scales), values)


@pytest.mark.parametrize(("bits", "bound"), [(4, 0.088), (8, 0.0056)])
def test_a_gaussian_changes_by_less_than_with_the_scale_of_its_largest(bits, bound):
    values = np.random.default_rng(2).normal(0, 0.02, (64, 512)).astype(np.float32)
    codes, scales = to_integers(values, bits)
    largest = np.abs(values.reshape(64, -1, GROUP_COLS)).max(axis=2)
    plain = to_bf16(largest / ((1 << (bits - 1)) - 1))
    steps = np.repeat(of_bf16(plain), GROUP_COLS, axis=1)
    assert change(values, codes, scales) < bound
    assert change(values, codes, scales) < change(values, np.rint(values / steps), plain)


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_those_of_the_library(bits):
    torch = pytest.importorskip("torch")
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    half = 1 << (bits - 1)
    codes = np.random.default_rng(3).integers(-half, half, (5, 64)).astype(np.int8)
    theirs = helpers.pack_to_int32(torch.from_numpy(codes), bits).numpy()
    assert np.array_equal(packed(codes, bits).view(np.int32), theirs)


def test_bf16_is_rounded_to_the_nearest_and_the_even_one():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(size=999), [1 + 2**-8, 1 + 3 * 2**-8, 0.0, -0.0]]).astype(np.float32)
    theirs = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(of_bf16(to_bf16(values)), theirs)
