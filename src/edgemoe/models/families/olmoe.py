"""OLMoE: norm of queries and keys over the whole projection, optional clipping of q, k and v."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_model
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import hugging_face
from edgemoe.models.spec import AttentionSpec, ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec


def read_olmoe(reader: ConfigReader) -> ModelSpec:
    """Spec of an ``olmoe`` configuration; its experts are ``intermediate_size`` wide."""
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    has_bias = reader.flag("attention_bias", False)
    reader.refuse("use_qk_norm", (True,), "queries and keys have a norm in this family")
    attention = AttentionSpec(
        num_heads,
        reader.size("num_key_value_heads", num_heads),
        reader.size("head_dim", width // num_heads),
        "projection",
        has_bias,
        has_bias,
        clip_qkv=reader.number("clip_qkv", 0) or None,
    )
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts", "num_local_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax",
            reader.flag("norm_topk_prob", False),
        ),
        ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)),
    )
    layers = (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers")
    return read_model(reader, layers, default_eps=1e-5, default_theta=10000.0)


FAMILY = Family(
    "OLMoE",
    ("olmoe",),
    read_olmoe,
    hugging_face({"router.weight": ("mlp.gate.weight",)}),
    GgufFamily(
        "olmoe",
        {
            **KEYS,
            "feed_forward_length": "intermediate_size",
            "attention.clamp_kqv": "clip_qkv",
            "expert_weights_norm": "norm_topk_prob",
        },
        gguf_table(),
        {"norm_topk_prob": False},
        unheeded=("expert_weights_norm", "attention.clamp_kqv"),
    ),
    defaults={
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "max_position_embeddings": 4096,
        "num_experts_per_tok": 8,
        "num_experts": 64,
    },
)
