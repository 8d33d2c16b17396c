"""Float operations: numbers worked by hand first, then against their NumPy meaning."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import ops_reference

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def f32_matrix(weights):
    return native.Matrix(native.quantize(weights, "f32"), "f32", *weights.shape)


def test_rms_norm_by_hand():
    x = np.array([[3.0, 4.0]], np.float32)  # mean square 12.5
    out = native.rms_norm(x, np.array([1.0, 2.0], np.float32), 0.0)
    np.testing.assert_allclose(out, [[3 / 12.5**0.5, 8 / 12.5**0.5]], rtol=1e-6)


@pytest.mark.parametrize("width", [1, 7, 16, 33, 2048])
def test_rms_norm_matches_the_reference(width):
    x, weight = normal(5, width), normal(width)
    np.testing.assert_allclose(
        native.rms_norm(x, weight, 1e-6), ops_reference.rms_norm(x, weight, 1e-6), rtol=1e-5
    )


@pytest.mark.parametrize("norm", [native.rms_norm, native.layer_norm])
def test_norms_leave_out_what_rows_are_filled_up_with(norm):
    x, weights = normal(40, 33) + 2, [normal(33) for _ in range(1 if norm is native.rms_norm else 2)]
    filled = np.pad(x, ((0, 0), (0, 31)))
    out = norm(filled, *weights, 1e-5)
    assert np.array_equal(out[:, :33], norm(x, *weights, 1e-5))
    assert not out[:, 33:].any()
    with pytest.raises(ValueError, match="another length than rows"):
        norm(np.pad(x, ((0, 0), (0, 63))), *weights, 1e-5)


@pytest.mark.parametrize("width", [1, 16, 33])
def test_numbers_that_are_not_finite_are_found_anywhere(width):
    for place in range(2 * width):
        x = normal(2, width)
        assert native.all_finite(x)
        assert native.squares_finite(x)
        for wrong in (np.nan, np.inf, -np.inf):
            x.flat[place] = wrong
            assert not native.all_finite(x)
            assert not native.squares_finite(x)
        x.flat[place] = 1e30  # finite, but not its square
        assert native.all_finite(x)
        assert not native.squares_finite(x)


@pytest.mark.parametrize("width", [1, 7, 33, 2048])
def test_layer_norm_matches_torch(width):
    torch = pytest.importorskip("torch")
    x, weight, bias = normal(5, width) + 3, normal(width), normal(width)
    theirs = [torch.from_numpy(values) for values in (x, weight, bias)]
    expected = torch.nn.functional.layer_norm(theirs[0], (width,), *theirs[1:], 1e-5)
    np.testing.assert_allclose(
        native.layer_norm(x, weight, bias, 1e-5), expected.numpy(), rtol=1e-4, atol=1e-5
    )


def test_experts_are_chosen_by_hand():
    router = f32_matrix(np.eye(4, 32, dtype=np.float32))
    x = np.zeros((1, 32), np.float32)
    x[0, :4] = np.log([1.0, 4.0, 2.0, 1.0])
    ids, weights, choice = native.choose_experts(x, router, None, native.Router(4, 2))
    np.testing.assert_array_equal(choice, x[:, :4])
    assert ids.tolist() == [[1, 2]]
    np.testing.assert_allclose(weights, [[0.5, 0.25]], rtol=1e-6)
    for rule in (native.Router(4, 2, renormalize=True), native.Router(4, 2, "softmax_of_picked")):
        weights = native.choose_experts(x, router, None, rule)[1]
        np.testing.assert_allclose(weights, [[2 / 3, 1 / 3]], rtol=1e-6)
    # Ties go to the lower id.
    assert native.choose_experts(x, router, None, native.Router(4, 4))[0].tolist() == [[1, 2, 0, 3]]
    bias = np.log(np.array([8, 1, 1, 1], np.float32))
    assert native.choose_experts(x, router, bias, native.Router(4, 2))[0].tolist() == [[0, 1]]


def test_combine_by_hand_in_the_order_of_ranks():
    parts = np.array([[1.0, 2.0], [10.0, 20.0]], np.float32)
    out = native.combine(parts, np.array([[0.5, 0.1]], np.float32))
    np.testing.assert_allclose(out, [[1.5, 3.0]], rtol=1e-6)
