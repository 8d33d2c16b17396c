"""What the modes of ``edgemoe bench`` ask of loading."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from helpers.tiny_models import write_checkpoint

from edgemoe.bench import mode_options
from edgemoe.convert import convert
from edgemoe.quant import BitPlan
from edgemoe.store import open_store


# The number of chosen experts has another key in each, or stands in a configuration within the configuration.
@pytest.mark.parametrize(
    ("variation", "top_k"),
    [("qwen3", 2), ("ernie", 3), ("gemma4", 3), ("kimi-linear", 3), ("qwen3.5-nested", 3)],
)
def test_experts_on_demand_have_room_for_those_that_a_token_chooses(tmp_path, variation, top_k):
    convert(write_checkpoint(tmp_path / "hf", variation), tmp_path / "store", BitPlan.uniform("q4", "q8"))
    store = open_store(tmp_path / "store")
    (record_bytes,) = {entry.num_bytes for entry in store.manifest.experts.values()}
    options = mode_options("on-demand", store, None, None, None)
    assert options.cache_bytes == top_k * record_bytes
