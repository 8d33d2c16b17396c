"""The speed that is foretold before anything is loaded: by hand, and against what was once measured."""

from __future__ import annotations

import pytest

from edgemoe.engine.speed import missed_of, seconds_to_compute, seconds_to_read


def test_a_token_costs_its_weights_its_layers_and_what_is_waited_for():
    # 8 GB at 0.8 of 10 GB/s take a second, 100 layers 4 ms.
    assert seconds_to_compute(8e9, 100, 1e10) == pytest.approx(1.004)
    # 2 GB at 2 GB/s take a second, of which 0.7 shows; 1,000 reads take 60 ms besides.
    assert seconds_to_read(2e9, 1000, 2e9) == pytest.approx(0.76)
    assert seconds_to_read(0, 0, 2e9) == 0


def test_what_is_read_falls_faster_than_the_share_in_memory_grows():
    assert missed_of(0) == 1
    # Three quarters to the power of 2.5, a half to that power.
    assert missed_of(0.25) == pytest.approx(0.487, abs=1e-3)
    assert missed_of(0.5) == pytest.approx(0.177, abs=1e-3)
    assert missed_of(1) == missed_of(1.5) == 0
