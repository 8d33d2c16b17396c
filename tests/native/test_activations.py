"""What experts do with their inner values, and their biases, against NumPy, for every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import ops_reference

D, F, T = 64, 96, 5
RNG = np.random.default_rng(11)
GATED = ("clamped_swiglu:0.7:1.702", "clamped_glu:0.6:0.8:1:0", "capped_swiglu:0.9:1.3")
NAMES = ("silu", "gelu", "gelu_tanh", "relu", "relu2", *GATED)


def weights(*shape):
    return (RNG.standard_normal(shape) / 5).astype(np.float32)


GATE, UP, DOWN, X = weights(F, D), weights(F, D), weights(D, F), 3 * weights(T, D)
BIASES = 3 * weights(2 * F + D)


def matrix(values):
    return native.Matrix(native.quantize(values, "f32"), "f32", *values.shape)


def expected(name, is_gated, has_biases):
    biases = BIASES if has_biases else np.zeros_like(BIASES)
    of_gate, of_up, of_down = np.split(biases.astype(np.float64), [F, 2 * F])
    x = X.astype(np.float64)
    gate = x @ GATE.T + of_gate if is_gated else x @ UP.T + of_up
    up = x @ UP.T + of_up if is_gated else None
    return ops_reference.activate(name, gate, up) @ DOWN.T + of_down


@pytest.mark.parametrize("has_biases", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_an_expert_matches_its_reference(isa, name, has_biases):
    for is_gated in (True, False) if name not in GATED else (True,):
        biases = None if not has_biases else BIASES if is_gated else BIASES[F:]
        gate = matrix(GATE) if is_gated else None
        out = native.expert_ffn(X, gate, matrix(UP), matrix(DOWN), name, biases=biases)
        np.testing.assert_allclose(out, expected(name, is_gated, has_biases), rtol=1e-4, atol=1e-4)


def test_a_clamp_bites_on_both_sides_of_up_and_above_the_gate():
    gate, up = X.astype(np.float64) @ GATE.T, X.astype(np.float64) @ UP.T
    assert (gate > 0.7).any()
    assert (gate < -0.7).any()
    assert (up > 0.7).any()
    assert (up < -0.7).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "clamped_swiglu:7"}, "unknown activation"),
        ({"activation": "clamped_swiglu:7:1", "gate": None}, "needs a gate"),
        ({"biases": BIASES[:-1]}, "number of biases"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    call = {"gate": matrix(GATE), "up": matrix(UP), "down": matrix(DOWN)} | changes
    with pytest.raises(ValueError, match=message):
        native.expert_ffn(X, **call)
