"""A few random configurations of every family against transformers; scripts/fuzz-families tries more."""

from __future__ import annotations

import json
import random

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from helpers.family_check import check
from helpers.random_configs import RANDOM, random_config

from edgemoe.errors import UnsupportedModelError
from edgemoe.models import ModelSpec, read_spec

SEEDS = range(4)
LEFT_OUT = 0.12  # of the keys of a configuration


@pytest.mark.parametrize("family", sorted(RANDOM))
def test_logits_are_those_of_transformers(family, tmp_path):
    outcomes = {}
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcomes[seed] = check(random_config(family, seed), folder)
    assert not {seed: found.what for seed, found in outcomes.items() if found.kind == "fault"}
    assert any(found.kind == "same" for found in outcomes.values())


def read(config: dict) -> ModelSpec | None:
    try:
        return read_spec(json.loads(json.dumps(config)))
    except UnsupportedModelError:
        return None


@pytest.mark.parametrize("family", sorted(RANDOM))
def test_keys_that_are_left_out_or_null_stand_for_what_transformers_takes(family):
    num_read = 0
    for seed in range(30):
        rng, fields = (
            random.Random(f"{family} {seed}"),
            json.loads(json.dumps(random_config(family, seed).fields)),
        )
        own = fields.get("text_config", fields)
        for key in [key for key in own if rng.random() < LEFT_OUT]:
            own[key] = None
            if rng.random() < 0.5:
                del own[key]
        try:
            whole = transformers.AutoConfig.for_model(family, **json.loads(json.dumps(fields))).to_dict()
        except Exception:  # whatever transformers says of what it does not take
            continue
        spec = read(whole)
        assert read({"model_type": family, **fields}) == spec, seed
        num_read += spec is not None
    assert num_read
