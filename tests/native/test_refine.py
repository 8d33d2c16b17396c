"""Codes chosen together for a matrix's inputs: never worse, locally best, whatever shares the rows."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import reference
from edgemoe.quant import quantize_for
from edgemoe.quant.gram import expert_grams, gram

REFINED = [t.name for t in native.FORMAT_TRAITS.values() if t.is_refined]
TRELLIS = ("t2", "t3")
SHAPES = [(1, 32), (17, 64), (33, 160), (48, 256)]


def problem(rows, cols, seed=0, num_tokens=300):
    """Weights, and the gram of inputs whose columns are related and of unlike size."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((cols, cols)) / cols**0.5 + 0.5 * np.eye(cols)
    x = (rng.standard_normal((num_tokens, cols)) @ mix * rng.lognormal(0, 0.7, cols)).astype(np.float32)
    weights = rng.standard_t(5, (rows, cols)).astype(np.float32)
    return weights, x, gram(x, np.ones(num_tokens, np.float32))


def row_errors(weights, packed, format, by):
    change = weights.astype(np.float64) - reference.dequantize(packed, format, *weights.shape)
    return ((change @ by) * change).sum(axis=1)


@pytest.mark.parametrize("format", REFINED)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_no_rows_error_rises_and_most_fall_far(format, rows, cols):
    weights, _, by = problem(rows, cols)
    packed = native.quantize(weights, format, np.ascontiguousarray(np.diag(by)))
    before = row_errors(weights, packed, format, by)
    native.refine(weights, format, by, packed)
    after = row_errors(weights, packed, format, by)
    # Codes of a trellis are chosen for all rows of a group together.
    assert np.all(after <= before * (1 + 1e-4)) or format in TRELLIS
    assert after.sum() < (0.8 if rows > 1 else 1) * before.sum()


@pytest.mark.parametrize("format", [name for name in REFINED if name not in TRELLIS])
def test_no_single_code_could_be_better(format):
    weights, _, by = problem(16, 32, seed=1)
    packed = native.quantize(weights, format)
    native.refine(weights, format, by, packed)
    restored = reference.dequantize(packed, format, 16, 32).astype(np.float64)
    error = row_errors(weights, packed, format, by)
    gradient = (weights - restored) @ by
    # The values of a block are evenly spaced, so a step is the smallest gap between them.
    for row in range(16):
        for start in range(0, 32, 16):
            values = np.unique(restored[row, start : start + 16])
            step = np.diff(values).min()
            lowest, highest = values.min(), values.max()
            for col in range(start, start + 16):
                for change in (-step, step):
                    if lowest <= restored[row, col] + change <= highest:
                        gain = 2 * change * gradient[row, col] - change**2 * by[col, col]
                        assert gain <= 1e-4 * error[row]


def test_inputs_on_axes_of_their_own_leave_nothing_to_choose():
    weights, _, _ = problem(16, 64)
    packed = native.quantize(weights, "q3")
    rounded = packed.copy()
    native.refine(weights, "q3", np.eye(64, dtype=np.float32), packed)
    zeros = reference.dequantize(rounded, "q3", 16, 64) == 0
    assert np.array_equal(reference.dequantize(packed, "q3", 16, 64) == 0, zeros), "only bases may move"


def test_threads_and_chunks_do_not_change_a_bit():
    weights, _, by = problem(80, 96)
    whole = quantize_for(weights, "q2", by)
    parts = [quantize_for(weights[a:b], "q2", by) for a, b in ((0, 48), (48, 80))]
    assert np.array_equal(np.concatenate(parts), whole)
    before = native.get_num_threads()
    native.set_num_threads(5)
    try:
        assert np.array_equal(quantize_for(weights, "q2", by), whole)
    finally:
        native.set_num_threads(before)


def test_wide_formats_are_packed_as_ever():
    weights, _, by = problem(16, 64)
    for format in ("q8", "bf16"):
        assert np.array_equal(quantize_for(weights, format, by), native.quantize(weights, format))


def test_what_cannot_be_refined_is_refused():
    weights, _, by = problem(16, 64)
    with pytest.raises(ValueError, match="format q8 is not refined"):
        native.refine(weights, "q8", by, native.quantize(weights, "q8"))
    packed = native.quantize(weights, "q4")
    with pytest.raises(ValueError, match="row length of gram is 32, expected 64"):
        native.refine(weights, "q4", np.ascontiguousarray(by[:, :32]), packed)
    with pytest.raises(ValueError, match="diagonal of gram is not positive"):
        native.refine(weights, "q4", np.zeros_like(by), packed)


@pytest.mark.parametrize(("width", "inner"), [(64, 32), (32, 96)])  # narrower and wider than the model
@pytest.mark.parametrize("has_gate", [True, False])
def test_grams_are_those_of_what_each_matrix_is_fed(width, inner, has_gate):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, width)).astype(np.float32)
    counts = rng.uniform(0.1, 1, 50).astype(np.float32)
    gate, up = (rng.standard_normal((inner, width)).astype(np.float32) for _ in range(2))
    chunks = [slice(start, start + width) for start in range(0, inner, width)]
    raising = [(gate[c] if has_gate else None, up[c]) for c in chunks]
    found = expert_grams(x, counts, raising, "silu")
    raised = x @ (gate if has_gate else up).T
    middle = raised / (1 + np.exp(-raised)) * (x @ up.T if has_gate else 1)
    for name, fed in (("gate", x), ("up", x), ("down", middle)):
        plain = (fed * counts[:, None]).T @ fed / counts.sum()
        damped = plain + 0.1 * np.trace(plain) / len(plain) * np.eye(len(plain))
        np.testing.assert_allclose(found[name], damped, rtol=2e-4, atol=2e-4 * np.abs(damped).max())
