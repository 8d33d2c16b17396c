"""Configurations of families whose layers keep states of fixed size, beside layers of attention.

More value heads than key heads, heads that are not width / heads, experts no power of two.
"""

from __future__ import annotations

from typing import Any

from helpers.tiny_grouped import VISION, VOCAB_SIZE

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "moe_intermediate_size": 32,
    "num_experts": 10,
    "num_experts_per_tok": 3,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_DELTA = {
    **_COMMON,
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4,
    "shared_expert_intermediate_size": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.25},
}
_LFM2 = {
    **_COMMON,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_dense_layers": 1,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}
HYBRIDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3.5": ("qwen3_5_moe_text", {**_DELTA}),
    "qwen3.5-equal-heads": (
        "qwen3_5_moe_text",
        {
            **_DELTA,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "linear_attention", "linear_attention"],
            "linear_num_key_heads": 4,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 2,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3.5-nested": ("qwen3_5_moe", {"text_config": {**_DELTA}, **VISION}),
    "qwen3-next": ("qwen3_next", {**_DELTA, "intermediate_size": 96}),
    "qwen3-next-dense": (
        "qwen3_next",
        {
            **_DELTA,
            "intermediate_size": 96,
            "mlp_only_layers": [1],
            "hidden_act": "gelu",  # of convolutions too
            "norm_topk_prob": False,
            "linear_num_key_heads": 1,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
        },
    ),
    "lfm2": ("lfm2_moe", {**_LFM2}),
    "lfm2-bias": (
        "lfm2_moe",
        {
            **_LFM2,
            "conv_bias": True,
            "conv_L_cache": 4,
            "num_dense_layers": 0,
            "norm_topk_prob": False,
            "use_expert_bias": False,
            "routed_scaling_factor": 1.7,
            "tie_word_embeddings": False,
        },
    ),
}
