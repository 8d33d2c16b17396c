"""Keys that a configuration leaves out stand for what transformers takes for them."""

from __future__ import annotations

import pytest

transformers = pytest.importorskip("transformers")

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families import ALL_FAMILIES, FAMILIES, read_spec

WITH_DEFAULTS = [family for family in ALL_FAMILIES if family.defaults]


@pytest.mark.parametrize("family", WITH_DEFAULTS, ids=lambda family: family.model_types[0])
def test_defaults_are_those_of_transformers(family):
    theirs = transformers.AutoConfig.for_model(family.model_types[0])
    rope = getattr(theirs, "rope_parameters", None) or {}
    for key, value in family.defaults.items():
        found = rope.get(key) if key == "partial_rotary_factor" else getattr(theirs, key)
        assert found == value, key


@pytest.mark.parametrize("family", WITH_DEFAULTS, ids=lambda family: family.model_types[0])
def test_a_configuration_reads_the_same_with_and_without_defaults(family):
    """transformers writes every key; what is left of one that says little must be the same model."""
    little = {"num_hidden_layers": 3}
    if family.model_types[0] == "dots1":  # its class leaves these open
        little |= {"n_routed_experts": 12, "n_shared_experts": 2, "num_experts_per_tok": 3}
    if family.model_types[0] == "deepseek_v2":
        little |= {"num_experts_per_tok": 3, "moe_intermediate_size": 1408}
    if family.model_types[0] == "deepseek_v3":
        little |= {"num_hidden_layers": 5}
    if family.model_types[0] == "glm4_moe":  # its own width and heads give heads of an odd width
        little |= {"head_dim": 128}
    if family.model_types[0] == "lfm2_moe":  # its class leaves them open, its published files do not
        little |= {"layer_types": ["conv", "conv", "full_attention"]}
    if family.model_types[0] == "switch_transformers":  # its class reckons with this name before others count
        little = {"num_layers": 3}
    if family.model_types[0] == "nemotron_h":  # its class's own widths cannot be packed
        little |= {"moe_intermediate_size": 1856, "moe_shared_expert_intermediate_size": 3712}
    whole = transformers.AutoConfig.for_model(family.model_types[0], **little).to_dict()
    assert read_spec({"model_type": family.model_types[0], **little}) == read_spec(whole)


def test_every_model_type_reads_its_own_keys():
    assert ConfigReader({}, {"a": 1}).optional("a", 2) == 1
    assert ConfigReader({"a": None}, {"a": 1}).optional("a", 2) == 2, "null is an answer"
    assert all(name in family.model_types for name, family in FAMILIES.items())
