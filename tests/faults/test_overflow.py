"""Numbers that overflow while a model runs: an error that says what to do, and a model that goes on."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.chains import chain_weights, follower, write_chain

import edgemoe
from edgemoe import native
from edgemoe.convert import convert
from edgemoe.errors import NumericError
from edgemoe.quant import BitPlan

LAYER = "model.layers.0."


def store_of(tmp_path, **factors):
    """The chain with some tensors multiplied, stored exactly."""
    weights = chain_weights()
    for name, factor in factors.items():
        weights[name] *= np.float32(factor)
    convert(write_chain(tmp_path / "model", weights), tmp_path / "store", BitPlan.uniform("f32", "f32"))
    return tmp_path / "store"


@pytest.mark.parametrize("part", ["k", "v"])
def test_keys_and_values_beyond_half_precision_are_an_error(tmp_path, part):
    store = store_of(tmp_path, **{f"{LAYER}self_attn.{part}_proj.weight": 1e6})
    with edgemoe.load(store, "2GiB", context=16) as model:
        for _ in range(2):
            with pytest.raises(NumericError, match=r"keys or values are beyond f16; .*kv_format=\"f32\""):
                model.generate([5], max_tokens=2)
    with edgemoe.load(store, "2GiB", context=16, kv_format="f32") as model:
        assert model.generate([5], max_tokens=1).token_ids == [follower(5)]


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "lm_head.weight", f"{LAYER}self_attn.o_proj.weight"]
)
def test_states_and_logits_that_overflow_are_an_error(tmp_path, name):
    weights = chain_weights()
    weights[name] = np.full_like(weights[name], 3e38)
    convert(write_chain(tmp_path / "model", weights), tmp_path / "store", BitPlan.uniform("f32", "f32"))
    with (
        edgemoe.load(tmp_path / "store", "2GiB", context=16, kv_format="f32") as model,
        pytest.raises(NumericError, match=r"the model's (states|logits) are not finite"),
    ):
        model.generate([5], max_tokens=2)


@pytest.mark.parametrize("value", [65520.0, -1e9, np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 12, 39])
def test_one_value_that_a_cache_of_halves_cannot_hold_is_found(value, place):
    cache = np.zeros((1, 2, 40), np.float16)
    x = np.full((1, 1, 40), 65504.0, np.float32)
    native.store_kv(cache, x, 1)
    assert np.array_equal(cache[0, 1], x[0, 0].astype(np.float16))
    x[0, 0, place] = value
    with pytest.raises(OverflowError, match="beyond f16"):
        native.store_kv(cache, x, 0)
