"""Configurations of families with Mamba-2 layers: groups, long states, odd heads."""

from __future__ import annotations

from typing import Any

from helpers.tiny_grouped import VOCAB_SIZE

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 3,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_GRANITE = {
    **_COMMON,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    "intermediate_size": 32,
    "shared_intermediate_size": 64,
    "num_local_experts": 10,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 24,
    "mamba_chunk_size": 16,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 3.0,
    "tie_word_embeddings": True,
}
_NEMOTRON = {
    **_COMMON,
    "layers_block_type": [
        "linear_attention",
        "moe",
        "full_attention",
        "moe",
        "linear_attention",
        "mlp",
        "moe",
    ],
    "head_dim": 24,
    "intermediate_size": 96,
    "mamba_num_heads": 6,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 24,
    "chunk_size": 16,
    "n_routed_experts": 10,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 64,
    "routed_scaling_factor": 2.5,
    # Of several tokens transformers lets no step be smaller than this, of one token any.
    "time_step_min": 1e-30,
}
_KIMI = {
    **_COMMON,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_local_experts": 10,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 24,
    "v_head_dim": 16,
    "linear_head_dim": 32,
    "linear_num_heads": 3,
}
MAMBAS: dict[str, tuple[str, dict[str, Any]]] = {
    "granite-hybrid": ("granitemoehybrid", {**_GRANITE}),
    "granite-hybrid-rope": (
        "granitemoehybrid",
        {
            **_GRANITE,
            "position_embedding_type": "rope",
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
            "attention_bias": True,
            "mamba_n_groups": 2,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "mamba_d_conv": 3,
            "tie_word_embeddings": False,
            "time_step_limit": [0.3, 0.9],
        },
    ),
    "kimi-linear": ("kimi_linear", {**_KIMI}),
    "kimi-linear-groups": (
        "kimi_linear",
        {
            **_KIMI,
            "layer_types": None,
            "linear_attn_config": {
                "head_dim": 16,
                "num_heads": 6,
                "short_conv_kernel_size": 3,
                "full_attn_layers": [1, 4],
                "kda_layers": [2, 3],
            },
            "q_lora_rank": 32,
            "num_local_experts": 12,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": False,
            "n_shared_experts": 2,
            "first_k_dense_replace": 2,
            "routed_scaling_factor": 1.3,
            "tie_word_embeddings": True,
        },
    ),
    "nemotron": ("nemotron_h", {**_NEMOTRON}),
    "nemotron-latent": (
        "nemotron_h",
        {**_NEMOTRON, "moe_latent_size": 32, "mlp_bias": True, "hidden_size": 96, "attention_bias": True},
    ),
    "nemotron-groups": (
        "nemotron_h",
        {
            **_NEMOTRON,
            "layers_block_type": ["moe", "linear_attention", "moe", "full_attention"],
            "n_routed_experts": 12,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": False,
            "n_groups": 1,
            "mamba_head_dim": 32,
            "conv_kernel": 3,
            "use_conv_bias": False,
            "use_bias": True,
            "mlp_hidden_act": "gelu",
            "tie_word_embeddings": True,
        },
    ),
}
