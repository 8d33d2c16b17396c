"""A short run of scripts/fuzz: every reader gets damaged files, and gives a result or one line."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
from fuzz.campaign import run_campaign
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_give_a_result_or_one_line(name):
    num_inputs, faults = run_campaign(1.5, [name])
    assert num_inputs > 0
    assert [str(fault) for fault in faults] == []
