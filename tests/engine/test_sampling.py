from __future__ import annotations

import numpy as np
import pytest

from edgemoe.engine.sampling import Sampling, candidates, penalized, sample
from edgemoe.errors import RequestError

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def test_greedy_takes_the_likeliest_and_the_first_of_equals():
    generator = np.random.default_rng(0)
    assert sample(LOGITS, Sampling(), generator, []) == 1
    assert sample(np.zeros(5, np.float32), Sampling(), generator, []) == 0


@pytest.mark.parametrize(
    ("sampling", "tokens", "probabilities"),
    [
        (Sampling(temperature=1), [1, 3, 2, 0], [0.4, 0.3, 0.2, 0.1]),
        (Sampling(temperature=0.5), [1, 3, 2, 0], [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (Sampling(temperature=1, top_k=2), [1, 3], [4 / 7, 3 / 7]),
        (Sampling(temperature=1, top_p=0.5), [1, 3], [4 / 7, 3 / 7]),
        (Sampling(temperature=1, top_p=0.01), [1], [1.0]),
        (Sampling(temperature=1, top_p=0), [1], [1.0]),
        (Sampling(temperature=1, min_p=0.6), [1, 3], [4 / 7, 3 / 7]),
    ],
)
def test_filters_by_hand(sampling, tokens, probabilities):
    kept, p = candidates(LOGITS, sampling)
    assert kept.tolist() == tokens
    np.testing.assert_allclose(p, probabilities, rtol=1e-5)


def test_repetition_penalty_by_hand():
    logits = np.array([2.0, -2.0, 1.0], np.float32)
    assert penalized(logits, np.array([0, 1]), 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_draws_follow_the_probabilities_and_the_seed():
    sampling = Sampling(temperature=1, seed=4)
    first, again = sampling.generator(), sampling.generator()
    draws = [sample(LOGITS, sampling, first, []) for _ in range(4000)]
    assert draws[:50] == [sample(LOGITS, sampling, again, []) for _ in range(50)]
    # Four standard deviations of a share over 4000 draws.
    np.testing.assert_allclose(np.bincount(draws) / 4000, [0.1, 0.4, 0.2, 0.3], atol=0.031)


@pytest.mark.parametrize("wrong", [{"temperature": -0.1}, {"top_k": -1}, {"top_p": -1}, {"min_p": 2},
                                   {"repetition_penalty": 0}])  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RequestError, match=f"{next(iter(wrong))} is"):
        Sampling(**wrong)
