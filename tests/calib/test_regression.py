"""Ridge regression against what made its data, and in the layout that packing takes."""

from __future__ import annotations

import numpy as np

from edgemoe.calib.routing.regression import RIDGES, Ridge


def test_it_finds_what_made_the_data_and_shrinks_towards_where_it_starts():
    random = np.random.default_rng(2)
    features = random.normal(size=(2000, 320)).astype(np.float32)
    true = random.normal(size=(256, 320)).astype(np.float32)
    start = true + np.float32(0.1)
    solutions = Ridge(features).solve(features @ true.T - features @ start.T, start)
    assert len(solutions) == len(RIDGES)
    errors = [float(np.abs(solution - true).mean()) for solution in solutions]
    assert errors == sorted(errors)
    assert errors[0] < 1e-3
    assert 0.005 < errors[-1] < 0.1
    for solution in solutions:
        assert solution.dtype == np.float32
        assert solution.flags.c_contiguous, "of a size at which NumPy reuses temporary arrays"
