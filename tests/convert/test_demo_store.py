"""The embedded demo store is what converting the model in the repository gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemoe.convert import convert
from edgemoe.quant import BitPlan
from edgemoe.store import open_store
from edgemoe.workflows.demo import demo_store

MODEL = Path(__file__).parents[2] / "models" / "edgemoe-16m"
MAX_BYTES = 12_000_000


@pytest.mark.skipif(not MODEL.exists(), reason="an installed package has no models")
def test_the_demo_store_is_made_from_the_model_by_convert(tmp_path):
    convert(MODEL, tmp_path / "store", BitPlan.uniform("q4", "q6"))
    made = open_store(tmp_path / "store").manifest
    with demo_store() as path:
        kept = open_store(path).manifest
        assert sum(file.stat().st_size for file in path.iterdir()) <= MAX_BYTES
    assert kept.dense == made.dense
    assert kept.experts == made.experts
    assert {name: kept.checksums[name] for name in made.checksums} == made.checksums
