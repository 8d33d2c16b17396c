"""Configurations of families whose routers choose with biases or among groups, or weigh with multipliers.

Experts are no power of two, three are chosen, heads are not width / heads.
"""

from __future__ import annotations

from typing import Any

VOCAB_SIZE = 320
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 3,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_WIDTHS = {"intermediate_size": 96, "moe_intermediate_size": 32}
_GLM = {**_COMMON, **_WIDTHS, "n_routed_experts": 12, "n_shared_experts": 1, "head_dim": 24}
_SOLAR = {key: value for key, value in _GLM.items() if key != "intermediate_size"}
# A third of each head's entries rotate: 8 of 24, or 13 of 40, whose last has its partner behind them.
_MIMO = {
    **_COMMON, **_WIDTHS, "n_routed_experts": 12, "head_dim": 24, "v_head_dim": 16, "sliding_window": 7,
}  # fmt: skip
_HY = {**_COMMON, **_WIDTHS, "num_experts": 10, "num_shared_experts": 1, "head_dim": 24}
_MINIMAX = {**_COMMON, "intermediate_size": 32, "num_local_experts": 10, "head_dim": 32}
_ERNIE = {
    **{key: value for key, value in _COMMON.items() if key != "num_experts_per_tok"},
    **_WIDTHS,
    "moe_num_experts": 10,
    "moe_k": 3,
    "moe_num_shared_experts": 2,
}
_GRANITE = {**_COMMON, "intermediate_size": 32, "num_local_experts": 10}
_MULTIPLIERS = {
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.11,
    "logits_scaling": 8.0,
}
_QWEN_VL = {
    **_COMMON,
    **_WIDTHS,
    "moe_intermediate_size": 96,
    "num_experts": 10,
    "head_dim": 24,
    "tie_word_embeddings": False,
}
VISION = {
    "vision_config": {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
    },
    **dict.fromkeys(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), 5),
    "tie_word_embeddings": False,
}  # fmt: skip
_LATENT = {
    **_COMMON, **_WIDTHS, "num_key_value_heads": 4, "n_routed_experts": 12, "n_shared_experts": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 40,
}  # fmt: skip
_YARN = {
    "rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 32,
    "beta_fast": 32, "beta_slow": 1,
}  # fmt: skip


def _rope(share: float, **more: Any) -> dict[str, Any]:
    parameters = {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": share, **more}
    return {"rope_parameters": parameters}


# name -> (family, configuration)
GROUPED: dict[str, tuple[str, dict[str, Any]]] = {
    "glm4": ("glm4_moe", {**_GLM, **_rope(0.5)}),
    "glm4-groups-biases": (
        "glm4_moe",
        {**_GLM, "n_group": 4, "topk_group": 2, "attention_bias": True, "use_qk_norm": True,
         "first_k_dense_replace": 2, "routed_scaling_factor": 2.5, "n_shared_experts": 2},
    ),
    "glm4-sums": ("glm4_moe", {**_GLM, "norm_topk_prob": False, "tie_word_embeddings": True,
                               "first_k_dense_replace": 0, **_rope(1.0)}),
    "solar": ("solar_open", {**_SOLAR, "routed_scaling_factor": 1.5, "attention_bias": True}),
    "solar-groups": ("solar_open", {**_SOLAR, "n_group": 3, "topk_group": 2, "norm_topk_prob": False}),
    "dots1": ("dots1", {**_GLM, "norm_topk_prob": True, "first_k_dense_replace": 1, "sliding_window": None}),
    "dots1-windows": (
        "dots1",
        {**_GLM, "n_shared_experts": 2, "sliding_window": 7, "max_window_layers": 1, "n_group": 2,
         "topk_group": 1, "routed_scaling_factor": 1.7, "attention_bias": True},
    ),
    "minimax": ("minimax_m2", {**_MINIMAX, **_rope(0.5)}),
    "minimax-tied": ("minimax_m2", {**_MINIMAX, "tie_word_embeddings": True, "hidden_act": "gelu"}),
    "ernie": ("ernie4_5_moe", {**_ERNIE}),
    "ernie-interval": (
        "ernie4_5_moe",
        {**_ERNIE, "num_hidden_layers": 5, "moe_layer_interval": 2, "moe_layer_end_index": 3,
         "moe_num_shared_experts": 0, "moe_norm_min": 0.4, "tie_word_embeddings": False, "head_dim": 24},
    ),
    "ernie-biases": ("ernie4_5_moe", {**_ERNIE, "use_bias": True, "tie_word_embeddings": False}),
    "flex-olmo": (
        "flex_olmo",
        {**_COMMON, "intermediate_size": 32, "num_experts": 7, "attention_bias": True,
         "norm_topk_prob": True},
    ),
    "mimo": (
        "mimo_v2_flash",
        {**_MIMO, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "mimo-odd": (
        "mimo_v2_flash",
        {**_MIMO, "head_dim": 40, "v_head_dim": 48, "attention_value_scale": None, "attention_bias": True,
         "sliding_window_size": 4, "mlp_layer_types": ["sparse", "dense", "sparse"], "n_group": 4,
         "topk_group": 2, "norm_topk_prob": False, "tie_word_embeddings": True},
    ),
    "hy": ("hy_v3", {**_HY}),
    "hy-layers": (
        "hy_v3",
        {**_HY, "mlp_layer_types": ["sparse", "dense", "sparse"], "router_scaling_factor": 1.3,
         "num_shared_experts": 2, "attention_bias": True, "tie_word_embeddings": True, "mlp_bias": True},
    ),
    "granite": ("granitemoe", {**_GRANITE, **_MULTIPLIERS, "tie_word_embeddings": True}),
    "granite-plain": ("granitemoe", {**_GRANITE, "attention_bias": True, "attention_multiplier": 0.3}),
    "granite-shared": ("granitemoeshared", {**_GRANITE, **_MULTIPLIERS, "shared_intermediate_size": 64}),
    "granite-unshared": ("granitemoeshared", {**_GRANITE, **_MULTIPLIERS, "shared_intermediate_size": 0}),
    "glm4-lite": ("glm4_moe_lite", {**_LATENT}),
    "glm4-lite-layers": (
        "glm4_moe_lite",
        {**_LATENT, "mlp_layer_types": ["sparse", "dense", "sparse"], "q_lora_rank": None, "n_group": 3,
         "topk_group": 2, "norm_topk_prob": False, "rope_interleave": False, "attention_bias": True,
         "v_head_dim": 32, "tie_word_embeddings": True},
    ),
    "deepseek2": ("deepseek_v2", {**_LATENT, "first_k_dense_replace": 1}),
    "deepseek2-groups": (
        "deepseek_v2",
        {**_LATENT, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
         "routed_scaling_factor": 1.5, "n_shared_experts": 2, "attention_bias": True, "mlp_bias": True},
    ),
    "deepseek2-lite": (
        "deepseek_v2",
        {**_LATENT, "q_lora_rank": None, "qk_nope_head_dim": 32,
         "rope_parameters": {**_YARN, "mscale": 0.707, "mscale_all_dim": 0.707}},
    ),
    "deepseek3": (
        "deepseek_v3", {**_LATENT, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2},
    ),
    "deepseek3-yarn": (
        "deepseek_v3",
        {**_LATENT, "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "attention_bias": True,
         "v_head_dim": 16, "rope_interleave": False, "routed_scaling_factor": 1.2, "norm_topk_prob": False,
         "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 0.8}},
    ),
    "phi": (
        "phimoe",
        {**_COMMON, "num_experts_per_tok": 2, "intermediate_size": 32, "num_local_experts": 10,
         "attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.05,
         "rope_parameters": {
             "rope_type": "longrope", "rope_theta": 5000.0, "original_max_position_embeddings": 100,
             "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0] * 8,
             "short_mscale": 1.2, "long_mscale": 1.4, "factor": 2.0}},
    ),
    "phi-plain": (
        "phimoe",
        {**_COMMON, "num_experts_per_tok": 2, "intermediate_size": 64, "num_local_experts": 6,
         "sliding_window": 9, "tie_word_embeddings": True, "head_dim": 24},
    ),
    "qwen3vl": ("qwen3_vl_moe", {"text_config": _QWEN_VL, **VISION}),
    "qwen3vl-sections": (
        "qwen3_vl_moe",
        {**VISION, "tie_word_embeddings": True, "text_config": {
            **_QWEN_VL, "mlp_only_layers": [1], "attention_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 9000.0, "mrope_section": [4, 4, 4],
                                "mrope_interleaved": True}},
        },
    ),
}  # fmt: skip
