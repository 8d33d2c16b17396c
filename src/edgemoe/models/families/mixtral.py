"""Mixtral: the weights of the chosen experts are the softmax over the chosen alone."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.fields import read_activation, read_model
from edgemoe.models.spec import AttentionSpec, ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec


def read_mixtral(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``mixtral`` configuration; its experts are ``intermediate_size`` wide."""
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    attention = AttentionSpec(
        num_heads,
        int(reader.optional("num_key_value_heads", num_heads)),
        int(reader.optional("head_dim", width // num_heads)),
        window=int(reader.optional("sliding_window", 0)),
    )
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_local_experts", "num_experts"),
            reader.require_size("num_experts_per_tok"),
            "pick_then_softmax",
            renormalize=True,
        ),
        ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)),
    )
    layers = (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers")
    return read_model(reader, layers, default_eps=1e-5, default_theta=1000000.0)
