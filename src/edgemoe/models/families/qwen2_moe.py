"""Qwen2-MoE: biases of queries, keys and values, and a shared expert with its own gate."""

from __future__ import annotations

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import (
    read_activation,
    read_kinds,
    read_model,
    read_qwen_layers,
    read_window,
)
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import MLP, PROJECTIONS, hugging_face
from edgemoe.models.spec import ModelSpec, SharedExpertSpec


def read_qwen2(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``qwen2_moe`` configuration."""
    windows = _windows(reader, reader.require_size("num_hidden_layers"))
    has_bias = reader.flag("qkv_bias", True)
    shared = SharedExpertSpec(
        reader.require_size("shared_expert_intermediate_size"), read_activation(reader), has_gate=True
    )
    layers = read_qwen_layers(reader, windows, "none", (has_bias, False), shared)
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0)


def _windows(reader: ConfigReader, num_layers: int) -> list[int]:
    """Window per layer: by ``layer_types``, else every other layer below ``max_window_layers``."""
    window, is_used = read_window(reader), reader.flag("use_sliding_window", False)
    limit = reader.size("max_window_layers", 28, at_least=0)
    default = [
        "sliding_attention" if is_used and i % 2 == 0 and i < limit else "full_attention"
        for i in range(num_layers)
    ]
    types = read_kinds(reader, ("sliding_attention", "full_attention"), default)
    if not is_used and "sliding_attention" in types:
        raise UnsupportedModelError(
            "config.json: layer_types has sliding_attention, and use_sliding_window is not true; mend one of"
            " them"
        )
    return [window if kind == "sliding_attention" else 0 for kind in types]


FAMILY = Family(
    "Qwen1.5-MoE, Qwen2-MoE",
    ("qwen2_moe",),
    read_qwen2,
    hugging_face(
        {
            **MLP,
            "router.weight": ("mlp.gate.weight",),
            "shared_gate.weight": ("mlp.shared_expert_gate.weight",),
            **{f"shared.{p}.weight": (f"mlp.shared_expert.{p}_proj.weight",) for p in PROJECTIONS},
        }
    ),
    GgufFamily(
        "qwen2moe",
        {
            **KEYS,
            "attention.key_length": "head_dim",
            "feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
            "expert_weights_norm": "norm_topk_prob",
        },
        gguf_table(),
        {"norm_topk_prob": False},
        unheeded=("expert_weights_norm",),
    ),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 32768,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts_per_tok": 4,
        "num_experts": 60,
    },
)
