"""Tiny random models of transformers' own types, made from each type's own configuration class.

Sizes are set wherever a configuration, or one inside it, has such a key; what else a type needs is in OWN.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

VOCABULARY = 96
SIZES = {
    "hidden_size": 64, "d_model": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
    "num_hidden_layers": 4, "num_layers": 4, "n_layers": 4, "first_k_dense_replace": 1,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
    "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "index_head_dim": 32, "index_n_heads": 2, "index_topk": 16,
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "n_group": 1, "topk_group": 1,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_ERNIE = {
    "moe_intermediate_size": [32, 32],
    "moe_k": 2,
    "rope_parameters": {**_ROPE, "mrope_section": [3, 3, 2]},
}
_QWEN4 = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
# By folder: what a type needs besides.
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "dbrx": {
        "max_seq_len": 64,
        "n_heads": 4,
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_top_k": 2},
    },
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}},
    "diffusion_gemma": {"text_config": {"top_k_experts": 2}},
    "dots1": {"n_shared_experts": 1},
    "ernie4_5_vl_moe": {"text_config": _ERNIE},
    "glm4v_moe": {"text_config": {"rope_parameters": {**_ROPE, "mrope_section": [1, 1, 2]}}},
    "glm5_next": {
        "text_config": {"qk_rope_head_dim": 0, "head_dim": 0, "linear_head_dim": 16, "linear_num_heads": 4}
    },
    "gemma4": {"enable_moe_block": True, "top_k_experts": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "mimo_v2_flash": {"num_key_value_heads": 2},
    "mistral4": {"head_dim": 32},
    "muse_spark": {
        "audio_config": {"out_hidden_size": 64, "hidden_sizes": [16] * 4, "depths": [1] * 4},
        "text_config": {"moe_hidden_size": 64},
        "out_hidden_size": 64,
        "projector_hidden_size": 64,
    },
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2},
    "nllb_moe": {"encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_layers": 2, "decoder_layers": 2},
    "qwen4_exp": _QWEN4,
    "qwen3_omni_moe": {"vision_start_token_id": 90},
    "step3p7": {"text_config": {"sliding_window": 32}},
    "switch_transformers": {
        "d_kv": 16,
        "d_ff": 96,
        "num_heads": 4,
        "num_sparse_encoder_layers": 2,
        "num_decoder_layers": 4,
        "num_sparse_decoder_layers": 2,
    },
    "zaya": {"num_experts_per_tok": 1},
}
# Without the experts interface, by replacement of modules.
OTHERS = ("dbrx", "llama4", "longcat_flash", "nllb_moe", "step3p7", "switch_transformers")
_HEADS = ("ForCausalLM", "ForConditionalGeneration", "ForTokenClassification", "ForBlockDiffusion")


def model_folders() -> list[str]:
    """Folders of transformers' models whose experts can come from a store."""
    root = Path(transformers.__path__[0]) / "models"
    with_interface = {
        path.parent.name
        for path in root.glob("*/modeling_*.py")
        if "use_experts_implementation" in path.read_text(encoding="utf-8")
    }
    return sorted(with_interface | set(OTHERS))


def model_class(folder: str) -> type[PreTrainedModel]:
    """The class that is loaded of a folder: a language model where there is one."""
    module = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    if folder == "qwen3_omni_moe":
        return module.Qwen3OmniMoeThinkerForConditionalGeneration
    for head in _HEADS:
        for name in module.__all__:
            found = getattr(module, name)
            if name.endswith(head) and found.config_class is not None:
                return found
    raise LookupError(f"{folder}: no class of {', '.join(_HEADS)}")


def tiny_config(folder: str) -> PreTrainedConfig:
    """A small configuration of a folder's model."""
    return _shrunk(model_class(folder).config_class, OWN.get(folder, {}))


def tiny_model(folder: str, seed: int = 0) -> PreTrainedModel:
    """A small model with random weights, in which experts weigh as much as the rest."""
    torch.manual_seed(seed)
    model = model_class(folder)(tiny_config(folder)).float().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and value.is_floating_point():
                value.normal_(std=value.shape[-1] ** -0.5)
            elif name.endswith("bias") and value.is_floating_point():
                value.normal_(std=0.1)
    return model


def _shrunk(kind: type[PreTrainedConfig], own: dict[str, Any]) -> PreTrainedConfig:
    usual = kind()
    fields = usual.to_dict()
    given = {key: value for key, value in SIZES.items() if key in fields or key in usual.attribute_map}
    given.update(own)
    for key, value in vars(usual).items():
        if isinstance(value, PreTrainedConfig):
            given[key] = _shrunk(type(value), own.get(key, {}))
    return kind(**given)
