"""Attention: numbers worked by hand, then against its NumPy meaning, by operation and by layer."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import ops_reference

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("heads", "groups", "dim"), [(4, 2, 16), (6, 1, 40), (3, 3, 7), (2, 1, 64), (2, 2, 200)]
)
@pytest.mark.parametrize("window", [0, 5])
def test_attention_matches_the_reference(isa, dtype, heads, groups, dim, window):
    keys, values = (normal(groups, 30, dim).astype(dtype) for _ in range(2))
    q = normal(11, heads, dim)
    out = native.attention(q, keys, values, 13, dim**-0.5, window)
    split = np.concatenate(
        [
            native.attention(q[a:b], keys, values, 13 + a, dim**-0.5, window)
            for a, b in ((0, 1), (1, 8), (8, 11))
        ]
    )
    expected = ops_reference.attention(q, keys, values, 13, dim**-0.5, window)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(split, out)


@pytest.mark.parametrize(("heads", "groups"), [(20, 1), (12, 4), (5, 5)])
@pytest.mark.parametrize("num_tokens", [1, 3, 24])
def test_values_may_be_the_beginnings_of_the_keys(isa, heads, groups, num_tokens):
    """As of latents; more positions than a block of keys, and more entries than a block of columns."""
    keys, q = normal(groups, 150, 100).astype(np.float16), normal(num_tokens, heads, 100)
    out = native.attention(q, keys, keys, 120, 0.1, value_dim=83)
    alone = [
        native.attention(q[t : t + 1], keys, keys, 120 + t, 0.1, value_dim=83) for t in range(num_tokens)
    ]
    expected = ops_reference.attention(q, keys, keys, 120, 0.1)[:, :, :83]
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(np.concatenate(alone), out)


def test_attention_survives_huge_scores():
    """Scores of 1000 and 1001: without the largest subtracted first, both would count the same."""
    keys = np.array([[[1000.0], [1001.0]]], np.float32)
    values = np.array([[[0.0], [1.0]]], np.float32)
    out = native.attention(np.ones((1, 1, 1), np.float32), keys, values, 1, 1.0)
    np.testing.assert_allclose(out[0, 0, 0], 1 / (1 + np.exp(-1)), rtol=1e-5)


def test_halves_are_rounded_to_nearest_even_whatever_their_size(isa):
    rows = [normal(37) * scale for scale in (1, 3e-5, 1e-8, 7e4)]  # normal, subnormal, none and infinite
    new = np.stack([*rows, np.full(37, 1 + 2.0**-11, np.float32)])[:, None]
    cache = np.zeros((1, len(new), 37), np.float16)
    with pytest.raises(OverflowError, match="beyond f16"):  # of the infinite ones, and all is written
        native.store_kv(cache, new, 0)
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


def test_attention_by_hand_with_a_bias():
    """Equal keys: the bias alone says how the values are mixed."""
    keys, values = np.zeros((1, 3, 1), np.float32), np.array([[[1.0], [2.0], [4.0]]], np.float32)
    bias = np.log(np.array([[8.0, 2.0, 1.0, 3.0, 5.0]], np.float32))  # by distance -2 to 2
    q = np.ones((2, 1, 1), np.float32)
    causal = native.attention(q, keys, values, 1, 1.0, bias=bias)[:, 0, 0]
    np.testing.assert_allclose(causal, [(2 * 1 + 1 * 2) / 3, (8 * 1 + 2 * 2 + 1 * 4) / 11], rtol=1e-6)
    whole = native.attention(q, keys, values, 1, 1.0, num_keys=3, bias=bias)[:, 0, 0]
    np.testing.assert_allclose(whole, [(2 * 1 + 1 * 2 + 3 * 4) / 6, 16 / 11], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("num_keys", [0, 9, 30])
@pytest.mark.parametrize("has_bias", [False, True])
def test_attention_with_a_bias_or_to_all_keys_matches_the_reference(isa, dtype, num_keys, has_bias):
    keys, values = (normal(2, 30, 20).astype(dtype) for _ in range(2))
    q, options = normal(11, 4, 20), {"num_keys": num_keys, "bias": normal(4, 59) if has_bias else None}
    out = native.attention(q, keys, values, 13, 0.3, **options)
    split = [native.attention(q[a : a + 4], keys, values, 13 + a, 0.3, **options) for a in (0, 4, 8)]
    expected = ops_reference.attention(q, keys, values, 13, 0.3, **options)
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


# One layer: 4 query and 2 key heads of 16 on states of 64.
H, G, C, D = 4, 2, 16, 64
ROWS = {"q": H * C, "k": G * C, "v": G * C, "o": D}


class Layer:
    """A layer and what it means, in NumPy."""

    def __init__(self, format="f32", qk_norm="none", has_bias=False, clip=0.0, window=0):
        self.weights = {p: normal(n, D if p != "o" else H * C) / 8 for p, n in ROWS.items()}
        self.biases = {p: normal(n) if has_bias else None for p, n in ROWS.items()}
        self.norm, self.qk_norm, self.clip, self.window = normal(D), qk_norm, clip, window
        sizes = (C, C) if qk_norm == "head" else (H * C, G * C)
        self.norms = None if qk_norm == "none" else tuple(normal(size) for size in sizes)
        self.compiled = native.mixers.AttentionLayer(
            self.norm,
            1e-6,
            *(
                (native.Matrix(native.quantize(w, format), format, *w.shape), self.biases[p])
                for p, w in self.weights.items()
            ),
            self.norms,
            has_norms_of_heads=qk_norm == "head",
            num_heads=H,
            num_kv_heads=G,
            head_dim=C,
            clip=clip,
            scale=0.25,
            window=window,
        )

    def expected(self, x, rotation, bias):
        """For a text from its beginning on."""
        normed = ops_reference.rms_norm(x, self.norm, 1e-6)
        projected = {p: self.project(p, normed) for p in "qkv"}
        if self.qk_norm == "projection":
            for p, weight in zip("qk", self.norms, strict=True):
                projected[p] = ops_reference.rms_norm(projected[p], weight, 1e-6)
        if self.clip:
            projected = {p: np.clip(y, -self.clip, self.clip) for p, y in projected.items()}
        heads = {p: y.reshape(len(x), -1, C) for p, y in projected.items()}
        if self.qk_norm == "head":
            for p, weight in zip("qk", self.norms, strict=True):
                rows = ops_reference.rms_norm(heads[p].reshape(-1, C), weight, 1e-6)
                heads[p] = rows.reshape(heads[p].shape)
        if rotation is not None:
            heads |= {p: ops_reference.rope(heads[p], *rotation) for p in "qk"}
        keys, values = heads["k"].transpose(1, 0, 2), heads["v"].transpose(1, 0, 2)
        y = ops_reference.attention(heads["q"], keys, values, 0, 0.25, self.window, bias=bias)
        return x + self.project("o", y.reshape(len(x), -1))

    def project(self, p, x):
        return x @ self.weights[p].T.astype(np.float64) + (0 if self.biases[p] is None else self.biases[p])


def caches(dtype=np.float32):
    return [np.zeros((G, 20, C), dtype) for _ in range(2)]


def angles(num_tokens, pairs=6):
    turned = np.arange(num_tokens)[:, None] * np.arange(1, pairs + 1) / 7
    return np.cos(turned).astype(np.float32), np.sin(turned).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_norm": "head", "has_bias": True},
        {"qk_norm": "projection", "clip": 0.8},
        {"qk_norm": "head", "clip": 0.5, "window": 3},
    ],
)
@pytest.mark.parametrize("place", ["rotation", "bias"])
def test_a_layer_matches_its_reference(options, place):
    layer, x = Layer(**options), normal(9, D)
    rotation = angles(9) if place == "rotation" else None
    bias = normal(H, 41) if place == "bias" else None
    out = x.copy()
    layer.compiled.run(out, [(0, len(x), *caches(), 0, rotation, bias)])
    np.testing.assert_allclose(out, layer.expected(x, rotation, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", ["q4", "q8", "bf16"])
def test_a_layer_gives_the_same_bits_however_a_text_is_cut(isa, format):
    layer, x, rotation = Layer(format, qk_norm="head"), normal(17, D), angles(17)
    whole, cut = x.copy(), x.copy()
    layer.compiled.run(whole, [(0, 17, *caches(np.float16), 0, rotation, None)])
    kept = caches(np.float16)
    for a, b in ((0, 8), (8, 9), (9, 10), (10, 17)):
        angles_of = tuple(turned[a:b] for turned in rotation)
        layer.compiled.run(cut[a:b], [(0, b - a, *kept, a, angles_of, None)])
    assert np.array_equal(cut, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": normal(2, 32)}, "input row length is 32, expected 64"),
        ({"start": 19}, "positions outside the cache"),
        ({"rotation": angles(3)}, "have not a row for each token"),
        ({"rotation": angles(2, pairs=9)}, "more rotated dimensions than the head has"),
        ({"bias": np.zeros((H, 3), np.float32)}, "does not reach"),
        ({"keys": np.zeros((G, 20, 8), np.float32)}, "keys and values differ"),
    ],
)
def test_a_layer_refuses_what_does_not_fit(changes, message):
    keys, values = caches()
    call = {"x": normal(2, D), "keys": keys, "values": values, "start": 1, "rotation": None, "bias": None}
    x, *segment = (call | changes).values()
    with pytest.raises(ValueError, match=message):
        Layer().compiled.run(x, [(0, 2, *segment)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_sink_takes_its_part_of_the_softmax(isa, dtype):
    q, keys, values = normal(3, H, C), normal(G, 8, C).astype(dtype), normal(G, 8, C).astype(dtype)
    sinks = np.array([-50.0, 0.5, 3.0, 60.0], np.float32)
    out = native.attention(q, keys, values, 4, 0.3, window=5, sinks=sinks)
    expected = ops_reference.attention(q, keys, values, 4, 0.3, window=5, sinks=sinks)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(out[:, 3]).max() < 1e-6  # the sink takes all


def test_a_gate_multiplies_what_its_head_finds():
    layer, x = Layer(), normal(5, D)
    weights = np.concatenate([normal(H, 1, C, D) / 8, normal(H, 1, C, D)], axis=1)
    q, gate = weights[:, 0].reshape(H * C, D), weights[:, 1].reshape(H * C, D)
    pairs = {p: (as_matrix(w), None) for p, w in layer.weights.items()}
    pairs["q"] = (as_matrix(weights.reshape(2 * H * C, D)), None)
    compiled = native.mixers.AttentionLayer(
        layer.norm, 1e-6, *pairs.values(), None, has_norms_of_heads=False, num_heads=H, num_kv_heads=G,
        head_dim=C, scale=0.25, has_gate=True,
    )  # fmt: skip
    out = x.copy()
    compiled.run(out, [(0, 5, *caches(), 0, None, None)])
    normed = ops_reference.rms_norm(x, layer.norm, 1e-6)
    heads = {p: (normed @ w.T).reshape(5, -1, C) for p, w in {**layer.weights, "q": q}.items() if p != "o"}
    found = ops_reference.attention(
        heads["q"], heads["k"].transpose(1, 0, 2), heads["v"].transpose(1, 0, 2), 0, 0.25
    )
    gated = found.reshape(5, -1) / (1 + np.exp(-(normed @ gate.T)))
    np.testing.assert_allclose(out, x + gated @ layer.weights["o"].T, rtol=1e-4, atol=1e-4)


def test_values_may_be_keys_and_the_branch_may_be_normed_and_scaled():
    layer, x, post_norm, rotation = Layer(qk_norm="head"), normal(5, D), normal(D), angles(5)
    pairs = {p: (as_matrix(w), None) for p, w in layer.weights.items()}
    compiled = native.mixers.AttentionLayer(
        layer.norm, 1e-6, pairs["q"], pairs["k"], None, pairs["o"], layer.norms, has_norms_of_heads=True,
        num_heads=H, num_kv_heads=G, head_dim=C, scale=1.0, normalizes_values=True, post_norm=post_norm,
        branch_scale=0.22,
    )  # fmt: skip
    out = x.copy()
    compiled.run(out, [(0, 5, *caches(), 0, rotation, None)])
    normed = ops_reference.rms_norm(x, layer.norm, 1e-6)
    heads = {p: (normed @ layer.weights[p].T).reshape(5, -1, C) for p in "qk"}
    values = heads["k"] / np.sqrt((heads["k"] ** 2).mean(-1, keepdims=True) + 1e-6)
    for p, weight in zip("qk", layer.norms, strict=True):
        rows = ops_reference.rms_norm(heads[p].reshape(-1, C), weight, 1e-6).reshape(heads[p].shape)
        heads[p] = ops_reference.rope(rows, *rotation)
    y = ops_reference.attention(heads["q"], heads["k"].transpose(1, 0, 2), values.transpose(1, 0, 2), 0, 1.0)
    added = ops_reference.rms_norm(y.reshape(5, -1) @ layer.weights["o"].T, post_norm, 1e-6)
    np.testing.assert_allclose(out, x + 0.22 * added, rtol=1e-4, atol=1e-4)


def test_texts_of_one_call_do_not_see_each_other():
    layer, x, rotation = Layer("q4", qk_norm="head"), normal(9, D), angles(9)
    together, alone, first, second = x.copy(), x.copy(), caches(), caches()
    turned = [tuple(a[:4] for a in rotation), tuple(a[:5] for a in rotation)]
    layer.compiled.run(together, [(0, 4, *first, 0, turned[0], None), (4, 5, *second, 0, turned[1], None)])
    layer.compiled.run(alone[:4], [(0, 4, *caches(), 0, turned[0], None)])
    layer.compiled.run(alone[4:], [(0, 5, *caches(), 0, turned[1], None)])
    assert np.array_equal(together, alone)
    for segments in ([(0, 4, *first, 0, None, None)], [(1, 9, *first, 0, None, None)]):
        with pytest.raises(ValueError, match="segment"):
            layer.compiled.run(x, segments)


def as_matrix(weights):
    weights = np.ascontiguousarray(weights, np.float32)
    return native.Matrix(native.quantize(weights, "f32"), "f32", *weights.shape)
