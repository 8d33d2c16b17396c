"""Mixtral: the weights of the chosen experts are the softmax over the chosen alone."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_model
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import ATTENTION, EXPERTS, TOP, Name, NameTable, Steps
from edgemoe.models.spec import AttentionSpec, ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec
from edgemoe.source_ref import half_rotation_rows


def read_mixtral(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``mixtral`` configuration; its experts are ``intermediate_size`` wide."""
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    attention = AttentionSpec(
        num_heads,
        reader.size("num_key_value_heads", num_heads),
        reader.size("head_dim", width // num_heads),
        window=reader.size("sliding_window", 0, at_least=0),
    )
    reader.refuse(
        "norm_topk_prob", (True,), "the weights of the chosen experts always sum to 1 in this family"
    )
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_local_experts", "num_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax_of_picked",
        ),
        ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)),
    )
    layers = (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers")
    return read_model(reader, layers, default_eps=1e-5, default_theta=1000000.0)


def _q_rows(spec: ModelSpec, layer: int) -> Steps:
    attention = spec.layers[layer].mixer
    assert isinstance(attention, AttentionSpec)
    return (half_rotation_rows(attention.num_heads, attention.head_dim, attention.head_dim),)


def _k_rows(spec: ModelSpec, layer: int) -> Steps:
    attention = spec.layers[layer].mixer
    assert isinstance(attention, AttentionSpec)
    return (half_rotation_rows(attention.num_kv_heads, attention.head_dim, attention.head_dim),)


FAMILY = Family(
    "Mixtral",
    ("mixtral",),
    read_mixtral,
    NameTable(
        ("model.",),
        "layers.{l}.",
        TOP,
        {**ATTENTION, "router.weight": ("block_sparse_moe.gate.weight", "mlp.gate.weight")},
        EXPERTS,
    ),
    GgufFamily(
        "llama",
        {
            **KEYS,
            "feed_forward_length": "intermediate_size",
            "attention.key_length": "head_dim",
            "attention.sliding_window": "sliding_window",
        },
        # llama.cpp's converter reorders the rows of queries and keys for its way of rotating.
        gguf_table(
            {
                "attention.q.weight": (Name("attn_q.weight", _q_rows),),
                "attention.k.weight": (Name("attn_k.weight", _k_rows),),
            }
        ),
        is_ours=lambda own: bool(own.get("expert_count")),
    ),
)
