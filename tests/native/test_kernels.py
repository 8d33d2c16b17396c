"""Every packed format on every instruction set against its NumPy meaning, over awkward shapes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tolerances import dot_bound
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemoe import native
from edgemoe.native import reference

SHAPES = [(1, 32), (3, 64), (15, 96), (16, 128), (17, 160), (33, 704), (64, 1408), (5, 2880)]
# Exact formats, made of other engines' blocks, are tested in test_exact_formats.py.
ROUNDED = [t.name for t in native.FORMAT_TRAITS.values() if t.is_rounded]
LOW_BIT = [t.name for t in native.FORMAT_TRAITS.values() if t.is_rounded and t.is_low_bit]
TRELLIS = ("t2", "t3")  # which have no zero beside other values


def packed_matrix(format, rows, cols, seed=0):
    weights = np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)
    return weights, native.Matrix(native.quantize(weights, format), format, rows, cols)


@pytest.mark.parametrize("format", ROUNDED)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_matmul_matches_the_reference(isa, format, rows, cols):
    _, matrix = packed_matrix(format, rows, cols)
    x = np.random.default_rng(1).standard_normal((9, cols)).astype(np.float32)
    expected = reference.matmul(x, matrix.packed, format, rows)
    weights = reference.dequantize(matrix.packed, format, rows, cols)
    # Low-bit kernels add scale * code and scale * zero apart, so bound by both terms' sizes.
    spread = np.abs(weights) + (np.abs(weights).max(axis=1, keepdims=True) if format in LOW_BIT else 0)
    seen = reference.quantize_activations(x) if format in LOW_BIT else x
    assert np.all(np.abs(native.matmul(x, matrix) - expected) <= dot_bound(spread, seen))


@pytest.mark.parametrize("format", ROUNDED)
def test_a_token_has_the_same_bits_in_any_company(isa, format):
    _, matrix = packed_matrix(format, 50, 256)
    x = np.random.default_rng(2).standard_normal((21, 256)).astype(np.float32)
    whole = native.matmul(x, matrix)
    single = np.concatenate([native.matmul(x[t : t + 1], matrix) for t in range(len(x))])
    assert np.array_equal(whole, single)


@pytest.mark.parametrize("format", ["q2", "q3"])
def test_the_largest_sums_have_the_same_bits_in_any_company(isa, format):
    packed = native.quantize(np.ones((16, 256), np.float32), format)
    packed[2 * 16 :] = 255  # after the rows' own scales: every scale, zero and code is the largest
    matrix = native.Matrix(packed, format, 16, 256)
    x = np.random.default_rng(4).uniform(0.98, 1, (21, 256)).astype(np.float32)
    whole = native.matmul(x, matrix)
    single = np.concatenate([native.matmul(x[t : t + 1], matrix) for t in range(len(x))])
    assert np.array_equal(whole, single)
    assert np.allclose(whole, reference.matmul(x, packed, format, 16), rtol=1e-5)


@pytest.mark.parametrize("format", ["q4", "bf16"])
def test_threads_do_not_change_a_bit(format):
    _, up = packed_matrix(format, 96, 64, 1)
    _, down = packed_matrix(format, 64, 96, 2)
    x = np.random.default_rng(3).standard_normal((40, 64)).astype(np.float32)
    before = native.get_num_threads()
    results = []
    for count in (1, 2, 5):
        native.set_num_threads(count)
        results.append(native.expert_ffn(x, up, up, down))
    native.set_num_threads(before)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("format", ROUNDED)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_dequantize_matches_the_reference(format, rows, cols):
    _, matrix = packed_matrix(format, rows, cols)
    expected = reference.dequantize(matrix.packed, format, rows, cols)
    actual = native.dequantize(matrix.packed, format, rows, cols)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


def test_f32_and_f16_keep_what_they_can():
    weights = np.array([[0.0, 1.0, -2.5, 65504.0, 6e-8, 1e-9, 3.14159274, -0.0] * 4], np.float32)
    assert np.array_equal(native.dequantize(native.quantize(weights, "f32"), "f32", 1, 32), weights)
    halves = native.dequantize(native.quantize(weights, "f16"), "f16", 1, 32)
    assert np.array_equal(halves, weights.astype(np.float16).astype(np.float32))


# Root-mean-square error on a Gaussian, relative to its deviation; measured
# 0.268, 0.133, 0.0735, 0.0189, 0.0054; 0.278, 0.142.
LARGEST_ERROR = {"q2": 0.28, "q3": 0.14, "q4": 0.076, "q6": 0.0205, "q8": 0.0058, "t2": 0.283, "t3": 0.145}


@pytest.mark.parametrize("format", LOW_BIT)
def test_quantisation_error_of_a_gaussian(format):
    weights, matrix = packed_matrix(format, 64, 1024)
    error = native.dequantize(matrix.packed, format, 64, 1024) - weights
    assert np.sqrt((error**2).mean()) < LARGEST_ERROR[format]


@pytest.mark.parametrize("format", ["q2", "q3", "q4", "t2", "t3"])
def test_importance_lowers_the_weighted_error(format):
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((64, 512)).astype(np.float32)
    importance = np.exp(rng.standard_normal(512) * 2).astype(np.float32)

    def weighted_error(packed):
        return (((native.dequantize(packed, format, 64, 512) - weights) ** 2) * importance).sum()

    plain = weighted_error(native.quantize(weights, format))
    assert weighted_error(native.quantize(weights, format, importance)) < 0.97 * plain


@given(st.integers(0, 2**32 - 1), st.sampled_from(ROUNDED), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_row_chunks_pack_to_slices_of_the_whole(seed, format, num_groups, num_blocks):
    rows, cols = 16 * num_groups, 32 * num_blocks
    weights = np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)
    parts = [native.quantize(weights[i : i + 16], format) for i in range(0, rows, 16)]
    assert np.array_equal(np.concatenate(parts), native.quantize(weights, format))


# q8 has f16 scales, which lose precision for weights below about 0.005.
@given(st.sampled_from(["q2", "q3", "q4", "q6", "t2", "t3"]), st.floats(-30, 30))
@settings(max_examples=60, deadline=None)
def test_scaling_by_powers_of_two_scales_the_result(format, exponent):
    weights = np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32)
    factor = np.float32(2.0 ** round(exponent / 3))
    base = native.dequantize(native.quantize(weights, format), format, 16, 64)
    scaled = native.dequantize(native.quantize(weights * factor, format), format, 16, 64)
    np.testing.assert_allclose(scaled, base * factor, rtol=1e-3, atol=1e-3 * float(factor))


@pytest.mark.parametrize("format", ROUNDED)
def test_zeros_stay_zero_and_outliers_survive(format):
    weights = np.zeros((16, 96), np.float32)
    weights[3, 40] = 100.0
    out = native.dequantize(native.quantize(weights, format), format, 16, 96)
    shown = out == 0
    assert np.array_equal(shown[:, :32], weights[:, :32] == 0)
    assert np.array_equal(shown, weights == 0) or format in TRELLIS
    assert np.abs(out).sum() < (400 if format in TRELLIS else 111)
    assert out[3, 40] == pytest.approx(100.0, rel=0.15 if format in TRELLIS else 0.1)


def test_expert_ffn_is_down_of_gated_up(isa):
    _, gate = packed_matrix("f32", 48, 64, 1)
    _, up = packed_matrix("f32", 48, 64, 2)
    # A width of 48 is no multiple of 32, which down's rows would need.
    with pytest.raises(ValueError, match="multiple of 32"):
        packed_matrix("f32", 64, 48)
    _, gate = packed_matrix("f32", 96, 64, 1)
    _, up = packed_matrix("f32", 96, 64, 2)
    _, down = packed_matrix("f32", 64, 96, 3)
    x = np.random.default_rng(4).standard_normal((7, 64)).astype(np.float32)
    g, u = native.matmul(x, gate), native.matmul(x, up)
    for activation, act in {
        "silu": lambda v: v / (1 + np.exp(-v)),
        "relu": lambda v: np.maximum(v, 0),
        "gelu": lambda v: np.vectorize(lambda z: 0.5 * z * (1 + __import__("math").erf(z / 2**0.5)))(v),
    }.items():
        expected = (act(g.astype(np.float64)) * u).astype(np.float32)
        np.testing.assert_allclose(
            native.expert_ffn(x, gate, up, down, activation),
            native.matmul(expected, down),
            rtol=2e-5,
            atol=2e-4,
        )


@pytest.mark.parametrize("format", ["q4", "f32"])
def test_an_expert_of_some_rows_has_the_bits_of_those_rows(isa, format):
    _, up = packed_matrix(format, 96, 64, 2)
    _, down = packed_matrix(format, 64, 96, 3)
    x = np.random.default_rng(4).standard_normal((30, 64)).astype(np.float32)
    for rows in (np.array([29, 0, 7, 7], np.int32), np.arange(29, 3, -1, dtype=np.int32)):
        expected = native.expert_ffn(np.ascontiguousarray(x[rows]), up, up, down)
        assert np.array_equal(native.expert_ffn(x, up, up, down, rows=rows), expected)
    with pytest.raises(ValueError, match="a row is outside the input"):
        native.expert_ffn(x, up, up, down, rows=np.array([30], np.int32))


def test_wrong_shapes_are_refused():
    _, matrix = packed_matrix("q4", 16, 64)
    with pytest.raises(ValueError, match="matmul: input row length is 32, expected 64"):
        native.matmul(np.zeros((1, 32), np.float32), matrix)
    with pytest.raises(ValueError, match="number of packed bytes"):
        native.matmul(np.zeros((1, 64), np.float32), native.Matrix(matrix.packed, "q8", 16, 64))
    with pytest.raises(ValueError, match="outside the matrix"):
        native.dequantize_rows(matrix, np.array([16], np.int32))
    with pytest.raises(RuntimeError, match="available: scalar"):
        native.force_isa("avx9000")


def test_an_expert_without_a_gate_is_down_of_the_activated(isa):
    _, up = packed_matrix("f32", 96, 64, 2)
    _, down = packed_matrix("f32", 64, 96, 3)
    x = np.random.default_rng(4).standard_normal((7, 64)).astype(np.float32)
    expected = native.matmul(np.maximum(native.matmul(x, up), 0), down)
    np.testing.assert_allclose(native.expert_ffn(x, None, up, down, "relu"), expected, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("has_gate", [True, False])
def test_experts_together_have_the_bits_of_single_calls(isa, threads, has_gate):
    """Formats may differ from expert to expert and from matrix to matrix."""
    forms = [("q4", "q4", "q6"), ("q2", "q8", "q3"), ("f32", "q4", "bf16"), ("f16", "f16", "f16")]
    experts = [
        tuple(
            packed_matrix(format, *shape, seed=10 * i + j)[1]
            for j, (format, shape) in enumerate(zip(formats, ((96, 64), (96, 64), (64, 96)), strict=True))
        )
        for i, formats in enumerate(forms)
    ]
    if not has_gate:
        experts = [(None, up, down) for _, up, down in experts]
    x = np.random.default_rng(4).standard_normal((5, 64)).astype(np.float32)
    rows = [[3], [0, 4], [1, 0, 2, 3, 4], [2, 1, 3]]
    out = np.full((12, 64), np.nan, np.float32)
    single = np.empty((4, 64), np.float32)
    before = native.get_num_threads()
    native.set_num_threads(threads)
    try:
        native.expert_ffns(x, experts, rows, "silu", out)
        native.expert_ffns(x[:1], experts, [[0]] * 4, "silu", single)
    finally:
        native.set_num_threads(before)
    start = 0
    for i, (expert, of) in enumerate(zip(experts, rows, strict=True)):
        alone = np.concatenate([native.expert_ffn(x[[row]], *expert, "silu") for row in range(5)])
        assert np.array_equal(out[start : start + len(of)], alone[of])
        assert np.array_equal(single[i], alone[0])
        start += len(of)
    assert np.isnan(out[start:]).all()
    other = (None if has_gate else experts[0][1], *experts[0][1:])
    for refused, of, room, says in (
        (experts[:1], [[5]], out, "a row is outside the input"),
        (experts[:1], [[0, 1]], out[:1], "the output has too few rows"),
        (experts[:1], [[]], out, "an expert has no rows"),
        ([experts[0], other], [[0], [1]], out, "some experts have a gate and some have none"),
    ):
        with pytest.raises(ValueError, match=says):
            native.expert_ffns(x, refused, of, "silu", room)
