"""The forecast of a layer's next use, against a sum by hand."""

from __future__ import annotations

import numpy as np

from edgemoe.experts import Catalog, NextUse, UseStatistics, gate_features, num_gate_columns
from edgemoe.native import Matrix, quantize

D, E, K = 32, 32, 2
RANDOM = np.random.default_rng(3)
CATALOG = Catalog({(layer, expert): 4096 for layer in range(2) for expert in range(E)})


def test_it_is_the_last_tokens_product_and_never_negative():
    rows = RANDOM.normal(size=(E, num_gate_columns(D, E))).astype(np.float32)
    next_use = NextUse({1: Matrix(quantize(rows, "f32"), "f32", *rows.shape)})
    x = RANDOM.normal(size=(3, D)).astype(np.float32)
    ids = np.argsort(RANDOM.random((3, E)), axis=1)[:, :K].astype(np.int32)
    weights = RANDOM.random((3, K)).astype(np.float32)
    expected = gate_features(x, ids, weights, E) @ rows.T
    statistics = UseStatistics(CATALOG)
    for num_tokens in (3, 1, 2):  # what one token chose is forgotten at the next
        next_use.tell(statistics, 1, x[:num_tokens], ids[:num_tokens], weights[:num_tokens])
        uses = statistics.expected[CATALOG.span(1)]
        assert np.allclose(uses, np.maximum(expected[num_tokens - 1], 0), atol=1e-4)
        assert (uses == 0).any()
        assert uses.any()
    next_use.tell(statistics, 0, x, ids, weights)
    assert not statistics.expected[CATALOG.span(0)].any(), "nothing is fitted for it"
