"""What predictors say, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.experts import (
    GateHead,
    GatePredictor,
    HybridPredictor,
    TablePredictor,
    TransitionTable,
    gate_features,
    num_gate_columns,
)
from edgemoe.native import Matrix, Router, quantize

D, E, K = 32, 32, 2
RANDOM = np.random.default_rng(5)


def head(targets, seed=0):
    rows = sum(size for _, size in targets)
    weights = np.random.default_rng(seed).normal(size=(rows, num_gate_columns(D, E))).astype(np.float32)
    return weights, GateHead(Matrix(quantize(weights, "f32"), "f32", *weights.shape), targets)


def inputs(num_tokens):
    x = RANDOM.normal(size=(num_tokens, D)).astype(np.float32)
    ids = np.argsort(RANDOM.random((num_tokens, E)), axis=1)[:, :K].astype(np.int32)
    return x, ids, RANDOM.random((num_tokens, K)).astype(np.float32)


def test_routers_with_biases_and_groups_are_forecast_by_what_they_choose_by():
    weights, gate = head([(1, E), (2, E)])
    x, ids, chosen = inputs(4)
    bias = RANDOM.normal(size=E).astype(np.float32)
    router = Router(E, K, "sigmoid", choice_bias=bias, num_groups=4, kept_groups=2)
    logits = gate_features(x, ids, chosen, E) @ weights.T
    plain, ruled = (p.forecast(0, x, ids, chosen, 2) for p in (
        GatePredictor({0: gate}, [E, E, E]), GatePredictor({0: gate}, [E, E, E], {2: router})
    ))  # fmt: skip
    assert np.array_equal(plain[0][1], ruled[0][1]), "the rule of the layer in between is that of logits"
    np.testing.assert_allclose(ruled[1][1], router.choice_scores(logits[:, E:]), rtol=1e-3)
    assert not np.array_equal(ruled[1][1].argmax(axis=1), logits[:, E:].argmax(axis=1))
    with pytest.raises(ValueError, match="a router does not fit its layer"):
        GatePredictor({0: gate}, [E, E, E], {1: Router(E - 1, K)})


def test_features_hold_state_choice_and_a_constant():
    x, ids, weights = inputs(3)
    features = gate_features(x, ids, weights, E)
    assert features.shape == (3, 96)
    assert np.array_equal(features[:, :D], x)
    for token in range(3):
        choice = features[token, D : D + E]
        assert np.allclose(choice[ids[token]], weights[token])
        assert np.count_nonzero(choice) == K
    assert (features[:, D + E] == 1).all()
    assert not features[:, D + E + 1 :].any()


def test_the_gate_multiplies_by_the_rows_of_each_target():
    weights, gate = head([(1, E), (2, E)])
    x, ids, chosen = inputs(4)
    predictor = GatePredictor({0: gate}, [E, E, E])
    expected = gate_features(x, ids, chosen, E) @ weights.T
    both = predictor.forecast(0, x, ids, chosen, lookahead=2)
    assert [target for target, _ in both] == [1, 2]
    assert np.allclose(np.concatenate([scores for _, scores in both], axis=1), expected, atol=1e-4)
    ((target, nearest),) = predictor.forecast(0, x, ids, chosen, lookahead=1)
    assert target == 1
    assert np.allclose(nearest, expected[:, :E], atol=1e-4)
    assert predictor.forecast(1, x, ids, chosen, lookahead=2) == []


def test_only_the_last_token_says_something_about_the_next_one():
    weights, gate = head([(0, E)])
    x, ids, chosen = inputs(4)
    ((target, scores),) = GatePredictor({1: gate}, [E, E]).forecast(1, x, ids, chosen, lookahead=2)
    assert target == 0
    assert np.allclose(scores, gate_features(x, ids, chosen, E)[-1:] @ weights.T, atol=1e-4)


@pytest.fixture
def tables():
    random = np.random.default_rng(1)
    return {
        position: TransitionTable(
            random.random((E, E), np.float32),
            random.random((E, E), np.float32),
            random.random((E, E, E), np.float32) if position else None,
        )
        for position in range(3)
    }


def test_the_table_looks_two_layers_back_across_tokens(tables):
    predictor = TablePredictor(tables, [E, E, E])
    x, first, weights = inputs(1)
    second, third = inputs(1)[1], inputs(1)[1]
    ((target, scores),) = predictor.forecast(0, x, first, weights, 1)
    assert target == 1
    assert np.allclose(scores, tables[1].single[first[0]].mean(axis=0)), "nothing came before"
    ((target, scores),) = predictor.forecast(1, x, second, weights, 1)
    by_pairs = np.mean([tables[2].pair[a, b] for a in first[0] for b in second[0]], axis=0)
    assert target == 2
    assert np.allclose(scores[0], by_pairs)
    ((target, scores),) = predictor.forecast(2, x, third, weights, 1)
    by_parts = tables[0].single[third[0]].mean(axis=0) + tables[0].older[second[0]].mean(axis=0)
    assert target == 0
    assert np.allclose(scores[0], by_parts), "without a table of pairs"


def test_a_table_does_not_take_another_layer_for_the_one_before(tables):
    """Where layers ran that it was not told of, as while reading ahead is off."""
    x, ids, weights = inputs(1)
    alone = TablePredictor(tables, [E, E, E]).forecast(1, x, ids, weights, 1)[0][1]
    predictor = TablePredictor(tables, [E, E, E])
    predictor.forecast(1, x, inputs(1)[1], weights, 1)
    ((_, scores),) = predictor.forecast(1, x, ids, weights, 1)
    assert np.array_equal(scores, alone)


def test_a_table_ignores_the_part_of_a_prompt_before(tables):
    predictor = TablePredictor(tables, [E, E, E])
    x, ids, weights = inputs(5)
    predictor.forecast(2, x, ids, weights, 1)
    ((_, scores),) = predictor.forecast(0, x, ids, weights, 1)
    assert np.allclose(scores, tables[1].single[ids].mean(axis=1))


def test_the_hybrid_adds_the_table_where_it_has_weight(tables):
    _, gate = head([(1, E)])
    x, ids, weights = inputs(1)
    gates = GatePredictor({0: gate}, [E, E, E])
    ((_, alone),) = gates.forecast(0, x, ids, weights, 1)
    for share in (0.0, 0.5):
        hybrid = HybridPredictor(gates, TablePredictor(tables, [E, E, E]), {1: share})
        ((_, scores),) = hybrid.forecast(0, x, ids, weights, 1)
        prior = np.log(tables[1].single[ids].mean(axis=1) + 1e-6)
        assert np.allclose(scores, alone + share * prior, atol=1e-5)


def test_what_does_not_fit_is_refused(tables):
    _, gate = head([(1, E)])
    x, ids, weights = inputs(1)
    with pytest.raises(ValueError, match="head at position 0 does not fit"):
        GatePredictor({0: gate}, [E, E + 1])
    predictor = GatePredictor({0: gate}, [E, E])
    with pytest.raises(ValueError, match="an expert is outside its layer"):
        predictor.forecast(0, x, ids + E, weights, 1)
    with pytest.raises(ValueError, match="too few columns"):
        predictor.forecast(0, np.tile(x, 3), ids, weights, 1)
    table = TransitionTable(tables[1].single, tables[1].older[:, 1:].copy(), None)
    with pytest.raises(ValueError, match="row length of the older table"):
        TablePredictor({1: table}, [E, E, E])
    with pytest.raises(ValueError, match="table of position 0 does not fit"):
        TablePredictor(tables, [E + 1, E, E])
    with pytest.raises(ValueError, match="an expert is outside its layer"):
        TablePredictor(tables, [E, E, E]).forecast(0, x, ids + E, weights, 1)


def test_the_tables_give_a_trace_what_they_give_its_tokens(tables):
    """``TransitionTable.scores`` is what fitting weighs the table with."""
    _, ids, _ = inputs(6)
    x, earlier, weights = inputs(6)
    for target in (1, 2):
        whole = tables[target].scores(ids, earlier if target == 2 else None)
        for token in range(6):
            predictor = TablePredictor(tables, [E, E, E])
            row = slice(token, token + 1)
            if target == 2:
                predictor.forecast(0, x[row], earlier[row], weights[row], 1)
            ((_, scores),) = predictor.forecast(target - 1, x[row], ids[row], weights[row], 1)
            assert np.allclose(scores[0], whole[token], atol=1e-6)
