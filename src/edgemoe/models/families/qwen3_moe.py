"""Qwen3-MoE: queries and keys are normed per head, and no expert is shared."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_model, read_qwen_layers, read_window
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import MLP, hugging_face
from edgemoe.models.spec import ModelSpec


def read_qwen3(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``qwen3_moe`` configuration."""
    # Kept by converters of older files; the family windows all layers or none.
    reader.optional("max_window_layers", None)
    reader.refuse("use_qk_norm", (True,), "queries and keys have a norm in this family")
    window, is_used = read_window(reader), reader.flag("use_sliding_window", False)
    windows = [window if is_used else 0] * reader.require_size("num_hidden_layers")
    has_bias = reader.flag("attention_bias", False)
    layers = read_qwen_layers(reader, windows, "head", (has_bias, has_bias), None)
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0)


FAMILY = Family(
    "Qwen3-MoE",
    ("qwen3_moe",),
    read_qwen3,
    hugging_face({**MLP, "router.weight": ("mlp.gate.weight",)}),
    GgufFamily(
        "qwen3moe",
        {
            **KEYS,
            "attention.key_length": "head_dim",
            "feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_weights_norm": "norm_topk_prob",
        },
        gguf_table(),
        {"norm_topk_prob": True},
        unheeded=("expert_weights_norm",),
    ),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
    },
)
