"""Latent attention in its absorbed form against the expanded one in NumPy, whole and in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import ops_reference

D, H, Q, L, R = 64, 3, 32, 32, 8
T = 9


def matrix(rng, rows, cols, format="f32"):
    values = (rng.standard_normal((rows, cols)) * cols**-0.5).astype(np.float32)
    return values, native.Matrix(native.quantize(values, format), format, rows, cols)


def padded(values, rows, cols):
    return np.pad(values, ((0, 0), (0, rows - values.shape[1]), (0, cols - values.shape[2])))


class Case:
    """Random weights of a layer of N plain dimensions and values of C, in both forms."""

    def __init__(self, plain_dim, value_dim, has_q_a, format="f32", has_gate=False):
        rng = np.random.default_rng(4)
        self.plain_dim, self.has_q_a = plain_dim, has_q_a
        self.norm, self.q_a_norm, self.kv_norm = (
            rng.uniform(0.5, 1.5, n).astype(np.float32) for n in (D, Q, L)
        )
        self.q_a, q_a = matrix(rng, Q, D)
        self.q_b, q_b = matrix(rng, H * (plain_dim + R), Q if has_q_a else D)
        self.kv_a, kv_a = matrix(rng, L + R, D)
        self.o, o = matrix(rng, D, H * value_dim) if H * value_dim % 32 == 0 else (None, None)
        self.k_b = (rng.standard_normal((H, plain_dim, L)) * L**-0.5).astype(np.float32)
        self.v_b = (rng.standard_normal((H, value_dim, L)) * L**-0.5).astype(np.float32)
        self.bias = rng.standard_normal(L + R).astype(np.float32)
        keys = padded(self.k_b.swapaxes(1, 2), L, -(-plain_dim // 32) * 32).reshape(H * L, -1)
        values = padded(self.v_b, -(-value_dim // 16) * 16, L).reshape(-1, L)
        k_b, v_b = (native.Matrix(native.quantize(m, format), format, *m.shape) for m in (keys, values))
        self.gate, gate = matrix(rng, H, D)
        self.has_gate = has_gate
        self.layer = native.mixers.LatentLayer(
            self.norm, 1e-5, ((q_a, None), self.q_a_norm) if has_q_a else None, q_b, (kv_a, self.bias),
            self.kv_norm, k_b, v_b, (o, None), num_heads=H, plain_dim=plain_dim, rotary_dim=R,
            value_dim=value_dim, scale=0.3, inner_eps=1e-6, branch_scale=0.5,
            gate=gate if has_gate else None,
        )  # fmt: skip
        self.x = rng.standard_normal((T, D)).astype(np.float32)
        angles = rng.uniform(0, 3, (T, R // 2)).astype(np.float32)
        self.cos, self.sin = np.cos(angles), np.sin(angles)

    def run(self, sizes, dtype=np.float32):
        x, cache = self.x.copy(), np.zeros((1, T, L + R), dtype)
        at = 0
        for size in sizes:
            rows = slice(at, at + size)
            rotation = self.cos[rows].copy(), self.sin[rows].copy()
            part = x[rows].copy()
            self.layer.run(part, [(0, size, cache, at, rotation)])
            x[rows] = part
            at += size
        return x

    def expected(self):
        normed = ops_reference.rms_norm(self.x, self.norm, 1e-5)
        queries = normed
        if self.has_q_a:
            queries = ops_reference.rms_norm(normed @ self.q_a.T, self.q_a_norm, 1e-6)
        q = (queries @ self.q_b.T).reshape(T, H, -1)
        q[..., self.plain_dim :] = ops_reference.rope(q[..., self.plain_dim :], self.cos, self.sin)
        latents = normed @ self.kv_a.T + self.bias
        latents[:, :L] = ops_reference.rms_norm(latents[:, :L], self.kv_norm, 1e-6)
        latents[:, L:] = ops_reference.rope(latents[:, None, L:], self.cos, self.sin)[:, 0]
        seen = ops_reference.latent_attention(q, latents, self.k_b, self.v_b, R, 0.3)
        if self.has_gate:
            seen = seen / (1 + np.exp(-(normed @ self.gate.T)))[:, :, None]
        return self.x + 0.5 * (seen.reshape(T, -1) @ self.o.T)


@pytest.mark.parametrize("has_q_a", [True, False])
@pytest.mark.parametrize(("plain_dim", "value_dim"), [(32, 32), (24, 32), (40, 64)])
def test_the_absorbed_form_is_the_expanded_one(plain_dim, value_dim, has_q_a):
    case = Case(plain_dim, value_dim, has_q_a)
    np.testing.assert_allclose(case.run([T]), case.expected(), rtol=2e-5, atol=2e-5)


def test_gates_multiply_what_each_head_finds():
    case = Case(24, 32, False, has_gate=True)
    np.testing.assert_allclose(case.run([T]), case.expected(), rtol=2e-5, atol=2e-5)
    assert np.array_equal(case.run([1] * T), case.run([T]))


@pytest.mark.parametrize("format", ["f32", "q8", "q4"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_cut_has_the_same_bits(format, dtype):
    case = Case(24, 32, True, format)
    whole = case.run([T], dtype)
    for sizes in ([4, 5], [1] * T, [1, 7, 1]):
        assert np.array_equal(case.run(sizes, dtype), whole)


def test_texts_of_a_step_do_not_see_each_other():
    case = Case(24, 32, True)
    alone = case.run([T])
    both, caches = (
        np.concatenate([case.x[:4], case.x]),
        [np.zeros((1, T, L + R), np.float32) for _ in range(2)],
    )
    rotation = case.cos, case.sin
    first = case.cos[:4].copy(), case.sin[:4].copy()
    case.layer.run(both, [(0, 4, caches[0], 0, first), (4, T, caches[1], 0, rotation)])
    assert np.array_equal(both[4:], alone)
    assert np.array_equal(both[:4], alone[:4])


def test_shapes_that_do_not_fit_are_refused():
    case = Case(24, 32, True)
    rotation = case.cos, case.sin
    with pytest.raises(ValueError, match="head dimension in the cache is 16, expected 40"):
        case.layer.run(case.x.copy(), [(0, T, np.zeros((1, T, 16), np.float32), 0, rotation)])
    with pytest.raises(ValueError, match="positions outside the cache"):
        case.layer.run(case.x.copy(), [(0, T, np.zeros((1, T, L + R), np.float32), 1, rotation)])
    with pytest.raises(ValueError, match="cos and sin have not an angle"):
        case.layer.run(
            case.x.copy(), [(0, T, np.zeros((1, T, L + R), np.float32), 0, (case.cos[:3], case.sin[:3]))]
        )
