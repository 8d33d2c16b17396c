"""Every rule by which experts are chosen and weighted, against its meaning in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import ops_reference

NUM_EXPERTS, WIDTH = 12, 32
RULES = {
    "softmax": {},
    "softmax, normalised": {"renormalize": True},
    "softmax of the picked": {"score": "softmax_of_picked"},
    "sigmoid": {"score": "sigmoid"},
    "a bias that chooses": {"score": "sigmoid", "renormalize": True, "choice_bias": 0.6, "scale": 2.5},
    "groups by two": {
        "score": "sigmoid", "num_groups": 4, "kept_groups": 2, "choice_bias": 0.4, "sum_eps": 1e-20,
        "renormalize": True,
    },
    "groups by two without a bias": {"score": "sigmoid", "num_groups": 3, "kept_groups": 1},
    "groups by the highest": {"num_groups": 4, "kept_groups": 2, "groups_by_highest": True, "scale": 16.0},
    "an added part of the sum": {"score": "sigmoid", "renormalize": True, "sum_eps": 0.5},
    "a softmax with an added part": {"renormalize": True, "sum_eps": 0.5},
    "a least sum": {"renormalize": True, "choice_bias": 0.5, "sum_eps": 0.3, "is_eps_minimum": True},
    "scales of experts": {"renormalize": True, "expert_scale": 1.0},
    "sparse mixer": {"score": "sparse_mixer", "jitter": 0.2},
    "sparse mixer, one": {"score": "sparse_mixer", "jitter": 0.2, "top_k": 1},
}  # fmt: skip


def arguments_of(rule, rng):
    found = {"score": "softmax", "top_k": 2 if "mixer" in rule else 3, **RULES[rule]}
    for name in ("choice_bias", "expert_scale"):
        if name in found:
            found[name] = (found[name] * rng.standard_normal(NUM_EXPERTS)).astype(np.float32)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_their_meaning_in_numpy(rule):
    rng = np.random.default_rng(5)
    arguments = arguments_of(rule, rng)
    router = native.Router(NUM_EXPERTS, arguments.pop("top_k"), arguments.pop("score"), **arguments)
    x, weights = (rng.standard_normal((n, WIDTH)).astype(np.float32) for n in (200, NUM_EXPERTS))
    matrix = native.Matrix(native.quantize(weights, "f32"), "f32", NUM_EXPERTS, WIDTH)
    bias = rng.standard_normal(NUM_EXPERTS).astype(np.float32)
    ids, found, choice = native.choose_experts(x, matrix, bias, router)
    logits = native.matmul(x, matrix) + bias
    arguments = arguments_of(rule, np.random.default_rng(5))
    expected_ids, expected, scores = ops_reference.route(logits, **arguments)
    assert np.array_equal(ids, expected_ids)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert np.array_equal(np.isinf(choice), np.isinf(scores))
    assert np.array_equal(choice.argmax(axis=1), ids[:, 0])
    assert np.array_equal(router.choice_scores(logits), choice)
    # The choice scores have the order of the choice.
    order = np.argsort(-choice, axis=1, kind="stable")[:, : ids.shape[1]]
    assert np.array_equal(order, ids)


def test_a_bias_chooses_and_does_not_weigh_by_hand():
    router = native.Router(3, 1, "sigmoid", choice_bias=np.array([0, 0, 1], np.float32))
    matrix = native.Matrix(native.quantize(np.eye(3, WIDTH, dtype=np.float32), "f32"), "f32", 3, WIDTH)
    x = np.zeros((1, WIDTH), np.float32)
    x[0, :3] = [2, 1, 0]
    ids, weights, _ = native.choose_experts(x, matrix, None, router)
    assert ids.tolist() == [[2]]
    assert weights.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 2, "sinkhorn"), "unknown score 'sinkhorn'"),
        ((4, 5), "top_k is outside"),
        ((4, 3, "sparse_mixer"), "chooses two"),
    ],
)
def test_impossible_rules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        native.Router(*arguments)


def test_impossible_groups_and_arrays_are_refused():
    with pytest.raises(ValueError, match="cannot be parted"):
        native.Router(4, 1, num_groups=3)
    with pytest.raises(ValueError, match="fewer experts than are chosen"):
        native.Router(4, 3, num_groups=2, kept_groups=1)
    with pytest.raises(ValueError, match="length of choice_bias is 3, expected 4"):
        native.Router(4, 1, choice_bias=np.zeros(3, np.float32))
