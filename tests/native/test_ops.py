"""Float operations: numbers worked by hand first, then against their NumPy meaning."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import reference

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_rms_norm_by_hand():
    x = np.array([[3.0, 4.0]], np.float32)  # mean square 12.5
    out = native.rms_norm(x, np.array([1.0, 2.0], np.float32), 0.0)
    np.testing.assert_allclose(out, [[3 / 12.5**0.5, 8 / 12.5**0.5]], rtol=1e-6)


@pytest.mark.parametrize("width", [1, 7, 16, 33, 2048])
def test_rms_norm_matches_the_reference(width):
    x, weight = normal(5, width), normal(width)
    np.testing.assert_allclose(
        native.rms_norm(x, weight, 1e-6), reference.rms_norm(x, weight, 1e-6), rtol=1e-5
    )


def test_rope_by_hand_turns_a_pair_by_a_right_angle():
    x = np.array([[[1.0, 2.0, 9.0, 3.0, 4.0, 9.0]]], np.float32)
    native.rope(x, np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))
    assert x.tolist() == [[[-3.0, -4.0, -9.0, 1.0, 2.0, 9.0]]]


def test_rope_leaves_unrotated_dimensions_alone():
    x = normal(4, 3, 10)
    angles = normal(4, 2)
    expected = reference.rope(x, np.cos(angles), np.sin(angles))
    native.rope(x, np.cos(angles), np.sin(angles))
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("isa", native.available_isas())
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("heads", "groups", "dim"), [(4, 2, 16), (6, 1, 40), (3, 3, 7), (2, 1, 64), (2, 2, 200)]
)
@pytest.mark.parametrize("window", [0, 5])
def test_attention_matches_the_reference(isa, dtype, heads, groups, dim, window):
    before = native.active_isa()
    native.force_isa(isa)
    keys, values = (normal(groups, 30, dim).astype(dtype) for _ in range(2))
    q = normal(11, heads, dim)
    out = native.attention(q, keys, values, 13, dim**-0.5, window)
    split = np.concatenate(
        [
            native.attention(q[a:b], keys, values, 13 + a, dim**-0.5, window)
            for a, b in ((0, 1), (1, 8), (8, 11))
        ]
    )
    native.force_isa(before)
    expected = reference.attention(q, keys, values, 13, dim**-0.5, window)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(split, out)


def test_attention_survives_huge_scores():
    """Scores of 1000 and 1001: without the largest subtracted first, both would count the same."""
    keys = np.array([[[1000.0], [1001.0]]], np.float32)
    values = np.array([[[0.0], [1.0]]], np.float32)
    out = native.attention(np.ones((1, 1, 1), np.float32), keys, values, 1, 1.0)
    np.testing.assert_allclose(out[0, 0, 0], 1 / (1 + np.exp(-1)), rtol=1e-5)


@pytest.mark.parametrize("isa", native.available_isas())
def test_halves_are_rounded_to_nearest_even_whatever_their_size(isa):
    rows = [normal(37) * scale for scale in (1, 3e-5, 1e-8, 7e4)]  # normal, subnormal, none and infinite
    new = np.stack([*rows, np.full(37, 1 + 2.0**-11, np.float32)])[:, None]
    before = native.active_isa()
    native.force_isa(isa)
    try:
        cache = np.zeros((1, len(new), 37), np.float16)
        native.store_kv(cache, new, 0)
    finally:
        native.force_isa(before)
    with np.errstate(over="ignore"):
        assert np.array_equal(cache[0], new[:, 0].astype(np.float16))


def test_store_kv_writes_heads_apart_and_rounds_to_f16():
    cache = np.zeros((2, 5, 3), np.float16)
    new = normal(2, 2, 3)
    native.store_kv(cache, new, 1)
    assert np.array_equal(cache[:, 1:3], new.transpose(1, 0, 2).astype(np.float16))
    assert not cache[:, [0, 3, 4]].any()
    with pytest.raises(ValueError, match="outside the cache"):
        native.store_kv(cache, new, 4)


def test_route_by_hand():
    logits = np.log(np.array([[1.0, 4.0, 2.0, 1.0]], np.float32))
    ids, weights = native.route(logits, 2, "softmax_then_pick", False)
    assert ids.tolist() == [[1, 2]]
    np.testing.assert_allclose(weights, [[0.5, 0.25]], rtol=1e-6)
    for rule, renormalize in (("softmax_then_pick", True), ("pick_then_softmax", False)):
        np.testing.assert_allclose(native.route(logits, 2, rule, renormalize)[1], [[2 / 3, 1 / 3]], rtol=1e-6)
    # Ties go to the lower id.
    assert native.route(logits, 4, "pick_then_softmax", False)[0].tolist() == [[1, 2, 0, 3]]


def test_combine_by_hand_in_the_order_of_ranks():
    parts = np.array([[1.0, 2.0], [10.0, 20.0]], np.float32)
    out = native.combine(parts, np.array([[0.5, 0.1]], np.float32))
    np.testing.assert_allclose(out, [[1.5, 3.0]], rtol=1e-6)


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown rule"):
        native.route(normal(1, 4), 2, "sinkhorn", False)


def test_attention_by_hand_with_a_bias():
    """Equal keys: the bias alone says how the values are mixed."""
    keys, values = np.zeros((1, 3, 1), np.float32), np.array([[[1.0], [2.0], [4.0]]], np.float32)
    bias = np.log(np.array([[8.0, 2.0, 1.0, 3.0, 5.0]], np.float32))  # by distance -2 to 2
    q = np.ones((2, 1, 1), np.float32)
    causal = native.attention(q, keys, values, 1, 1.0, bias=bias)[:, 0, 0]
    np.testing.assert_allclose(causal, [(2 * 1 + 1 * 2) / 3, (8 * 1 + 2 * 2 + 1 * 4) / 11], rtol=1e-6)
    whole = native.attention(q, keys, values, 1, 1.0, num_keys=3, bias=bias)[:, 0, 0]
    np.testing.assert_allclose(whole, [(2 * 1 + 1 * 2 + 3 * 4) / 6, 16 / 11], rtol=1e-6)


@pytest.mark.parametrize("isa", native.available_isas())
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("num_keys", [0, 9, 30])
@pytest.mark.parametrize("has_bias", [False, True])
def test_attention_with_a_bias_or_to_all_keys_matches_the_reference(isa, dtype, num_keys, has_bias):
    before = native.active_isa()
    native.force_isa(isa)
    keys, values = (normal(2, 30, 20).astype(dtype) for _ in range(2))
    q, options = normal(11, 4, 20), {"num_keys": num_keys, "bias": normal(4, 59) if has_bias else None}
    out = native.attention(q, keys, values, 13, 0.3, **options)
    split = [native.attention(q[a : a + 4], keys, values, 13 + a, 0.3, **options) for a in (0, 4, 8)]
    native.force_isa(before)
    expected = reference.attention(q, keys, values, 13, 0.3, **options)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(np.concatenate(split), out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_keys": 6}, "num_keys is outside"),
        ({"num_keys": 3, "window": 2}, "exclude each other"),
        ({"bias": np.zeros((2, 4), np.float32)}, "does not reach"),
        ({"bias": np.zeros((2, 3), np.float32)}, "does not reach"),
        ({"bias": np.zeros((1, 9), np.float32)}, "number of rows of bias is 1, expected 2"),
    ],
)
def test_attention_refuses_what_does_not_fit(options, message):
    cache = np.zeros((1, 5, 8), np.float32)
    with pytest.raises(ValueError, match=message):
        native.attention(np.zeros((1, 2, 8), np.float32), cache, cache, 2, 1.0, **options)
