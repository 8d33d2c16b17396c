"""Mixers with a state of fixed size: against NumPy, however a text is cut, on any threads, and peeked at."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import mixer_reference as reference

# Columns and tokens that are and are not whole blocks of those that pass together.
D, T, K = 64, 37, 4
HK, HV, DK, DV = 2, 6, 24, 48  # three value heads to a key head, dimensions of their own
C = 2 * HK * DK + HV * DV
CUTS = ((0, 5), (5, 6), (6, 7), (7, T))


def draw(*shape, seed=0):
    return (np.random.default_rng(seed + sum(shape)).standard_normal(shape)).astype(np.float32)


def pack(values, format="f32"):
    return native.Matrix(native.quantize(values, format), format, *values.shape)


class DeltaNet:
    """The compiled class, its weights and a fresh state."""

    def __init__(self, format="f32"):
        self.weights = {
            "norm": draw(D), "qkv": draw(C, D) / 8, "z": draw(HV * DV, D) / 8, "beta": draw(HV, D) / 8,
            "alpha": draw(HV, D, seed=1) / 8, "decay": -np.exp(draw(HV)), "dt_bias": draw(HV, seed=2),
            "taps": draw(K, C) / 2, "output_norm": draw(DV), "out": draw(D, HV * DV) / 8,
        }  # fmt: skip
        packed = {
            name: pack(w, "f32" if name in ("beta", "alpha") else format) if name in MATRICES else w
            for name, w in self.weights.items()
        }
        self.compiled = native.mixers.GatedDeltaNet(
            packed.pop("norm"), 1e-6, **packed, num_key_heads=HK, num_value_heads=HV, key_dim=DK, value_dim=DV
        )

    def state(self):
        return np.zeros((HV, DK, DV), np.float32), np.zeros((K - 1, C), np.float32)

    def expected(self, x):
        return reference.gated_delta_net(x, self.weights, (HK, HV), (DK, DV), 1e-6)


MATRICES = ("qkv", "z", "beta", "alpha", "out", "in_", "mixed", "steps")


class ShortConv:
    """See DeltaNet."""

    def __init__(self, format="f32", has_bias=True):
        self.weights = {
            "norm": draw(D), "in_": draw(3 * D, D) / 8, "in_bias": draw(3 * D) if has_bias else None,
            "taps": draw(K, D) / 2, "conv_bias": draw(D, seed=1) if has_bias else None,
            "out": draw(D, D) / 8, "out_bias": draw(D, seed=2) if has_bias else None,
        }  # fmt: skip
        packed = {n: pack(w, format) if n in MATRICES else w for n, w in self.weights.items()}
        self.compiled = native.mixers.ShortConv(packed.pop("norm"), 1e-6, **packed)

    def state(self):
        return (np.zeros((K - 1, D), np.float32),)

    def expected(self, x):
        return reference.short_conv(x, self.weights, 1e-6)


H, P, G, N = 6, 48, 2, 24  # heads in two groups, a state that is longer than a head


class Mamba2:
    """See DeltaNet. Some steps are held back by the limits."""

    LIMITS = (0.2, 1.5)

    def __init__(self, format="f32", has_bias=True):
        channels = H * P + 2 * G * N
        self.weights = {
            "norm": draw(D), "z": draw(H * P, D) / 8, "mixed": draw(channels, D) / 8, "steps": draw(H, D) / 8,
            "decay": -np.exp(draw(H)), "dt_bias": draw(H, seed=1), "skip": draw(H, seed=2),
            "taps": draw(K, channels) / 2, "conv_bias": draw(channels, seed=3) if has_bias else None,
            "output_norm": draw(H * P), "out": draw(D, H * P) / 8,
            "in_bias": draw(H * P + channels + H) / 4 if has_bias else None,
            "out_bias": draw(D, seed=4) if has_bias else None,
        }  # fmt: skip
        packed = {
            n: pack(w, "f32" if n == "steps" else format) if n in MATRICES else w
            for n, w in self.weights.items()
        }
        self.compiled = native.mixers.Mamba2(
            packed.pop("norm"), 1e-6, **packed, num_heads=H, head_dim=P, num_groups=G, state_dim=N,
            step_low=self.LIMITS[0], step_high=self.LIMITS[1],
        )  # fmt: skip

    def state(self):
        return np.zeros((H, N, P), np.float32), np.zeros((K - 1, H * P + 2 * G * N), np.float32)

    def expected(self, x):
        return reference.mamba2(x, self.weights, (H, P, G, N), self.LIMITS, 1e-6)


class KimiDelta:
    """See DeltaNet: forgetting through two matrices, without a bound."""

    LOWEST = 0.0
    RANK = 32

    def __init__(self, format="f32"):
        heads, keys, values = HV, HV * DK, HV * DV
        self.weights = {
            "norm": draw(D), "q": draw(keys, D) / 8, "k": draw(keys, D, seed=1) / 8, "v": draw(values, D) / 8,
            "forget": self.two(keys), "gate": self.two(values),
            "beta": draw(heads, D) / 8, "decay": -np.exp(draw(heads)), "dt_bias": draw(keys, seed=2),
            "taps": draw(K, 2 * keys + values) / 2, "output_norm": draw(DV), "out": draw(D, values) / 8,
        }  # fmt: skip
        packed = dict(self.weights)
        for name in ("q", "k", "v", "out"):
            packed[name] = pack(packed[name], format)
        packed["beta"] = pack(packed["beta"])
        for name in ("forget", "gate"):
            packed[name] = tuple(None if w is None else pack(w, format) for w in packed[name])
        self.compiled = native.mixers.KimiDeltaNet(
            packed.pop("norm"),
            1e-6,
            **packed,
            num_heads=heads,
            key_dim=DK,
            value_dim=DV,
            lowest_log=self.LOWEST,
        )

    def two(self, rows):
        if not self.RANK:
            return None, draw(rows, D, seed=3) / 8
        return draw(self.RANK, D, seed=rows) / 8, draw(rows, self.RANK) / 6

    def state(self):
        return np.zeros((HV, DK, DV), np.float32), np.zeros((K - 1, HV * (2 * DK + DV)), np.float32)

    def expected(self, x):
        return reference.kimi_delta_net(x, self.weights, HV, (DK, DV), self.LOWEST, 1e-6)


class BoundedKimiDelta(KimiDelta):
    """Forgetting through one matrix, with a bound."""

    LOWEST = -5.0
    RANK = 0


MIXERS = (DeltaNet, ShortConv, Mamba2, KimiDelta, BoundedKimiDelta)


def segment(first, num_rows, state):
    return first, num_rows, state[0] if len(state) == 2 else None, state[-1]


def run(mixer, x, state, cuts=((0, T),), commits=True):
    out = x.copy()
    for start, stop in cuts:
        mixer.compiled.run(out[start:stop], [segment(0, stop - start, state)], commits)
    return out


@pytest.mark.parametrize("kind", MIXERS)
def test_a_mixer_matches_its_reference(kind, isa):
    mixer, x = kind(), draw(T, D)
    np.testing.assert_allclose(run(mixer, x, mixer.state()), x + mixer.expected(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [ShortConv, Mamba2])
def test_biases_may_be_missing(kind):
    mixer, x = kind(has_bias=False), draw(T, D)
    np.testing.assert_allclose(run(mixer, x, mixer.state()), x + mixer.expected(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", ["f32", "q4"])
@pytest.mark.parametrize("kind", MIXERS)
def test_bits_depend_neither_on_cuts_nor_on_threads(kind, format):
    mixer, x, threads = kind(format), draw(T, D), native.get_num_threads()
    state = mixer.state()
    whole = run(mixer, x, state)
    try:
        for count in (1, 2, 5):
            native.set_num_threads(count)
            cut_state = mixer.state()
            assert np.array_equal(run(mixer, x, cut_state, CUTS), whole)
            for a, b in zip(cut_state, state, strict=True):
                assert np.array_equal(a, b)
    finally:
        native.set_num_threads(threads)


@pytest.mark.parametrize("kind", MIXERS)
def test_a_peek_gives_the_same_bits_and_leaves_the_state_alone(kind):
    mixer, x = kind(), draw(T, D)
    state = mixer.state()
    run(mixer, x, state, ((0, T - 1),))
    before = [array.copy() for array in state]
    peeked, taken = x[T - 1 :].copy(), x[T - 1 :].copy()
    mixer.compiled.run(peeked, [segment(0, 1, state)], False)
    for a, b in zip(before, state, strict=True):
        assert np.array_equal(a, b)
    mixer.compiled.run(taken, [segment(0, 1, state)], True)
    assert np.array_equal(peeked, taken)
    assert not np.array_equal(before[-1], state[-1])


@pytest.mark.parametrize("num_taken", [1, 3, 5])
@pytest.mark.parametrize("kind", MIXERS)
def test_recorded_rows_can_be_taken_in_as_far_as_one_likes(kind, num_taken):
    mixer, x = kind("q4"), draw(T, D)
    state, expected = mixer.state(), mixer.state()
    whole = run(mixer, x, expected, ((0, 4 + num_taken),))
    run(mixer, x, state, ((0, 4),))
    before = [array.copy() for array in state]
    record = np.empty(5 * mixer.compiled.record_width, np.float32)
    tried = x[4:9].copy()
    mixer.compiled.run(tried, [segment(0, 5, state)], True, [record])
    assert np.array_equal(tried[:num_taken], whole[4 : 4 + num_taken])
    for a, b in zip(before, state, strict=True):
        assert np.array_equal(a, b)
    mixer.compiled.replay(record, 5, num_taken, *segment(0, 0, state)[2:])
    for a, b in zip(expected, state, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", MIXERS)
def test_texts_of_one_step_do_not_see_each_other(kind):
    mixer, x = kind("q4"), draw(T, D)
    alone = [run(mixer, x[:4], mixer.state(), ((0, 4),)), run(mixer, x[4:], mixer.state(), ((0, T - 4),))]
    together = x.copy()
    mixer.compiled.run(together, [segment(0, 4, mixer.state()), segment(4, T - 4, mixer.state())], True)
    assert np.array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("kind", MIXERS)
def test_what_does_not_fit_is_refused(kind):
    mixer, x = kind(), draw(2, D)
    for first, num_rows in ((1, 2), (0, 1), (0, 0)):
        with pytest.raises(ValueError, match="segment"):
            mixer.compiled.run(x, [segment(first, num_rows, mixer.state())], True)
    with pytest.raises(ValueError, match="tail of another shape"):
        mixer.compiled.run(x, [segment(0, 2, (*mixer.state()[:-1], np.zeros((K, D), np.float32)))], True)
    with pytest.raises(ValueError, match="input row length"):
        mixer.compiled.run(draw(2, 32), [segment(0, 2, mixer.state())], True)
    state, tail = segment(0, 2, mixer.state())[2:]
    other = np.zeros((1, 1, 1), np.float32) if state is None else None
    with pytest.raises(ValueError, match="state"):
        mixer.compiled.run(x, [(0, 2, other, tail)], True)
    whole = segment(0, 2, mixer.state())
    with pytest.raises(ValueError, match="length of a record is 3"):
        mixer.compiled.run(x, [whole], True, [np.empty(3, np.float32)])
    with pytest.raises(ValueError, match="number of records"):
        mixer.compiled.run(x, [whole], True, [None, None])
    record = np.zeros(2 * mixer.compiled.record_width, np.float32)
    for num_rows in (0, 3):
        with pytest.raises(ValueError, match="more rows than were recorded"):
            mixer.compiled.replay(record, 2, num_rows, *whole[2:])
