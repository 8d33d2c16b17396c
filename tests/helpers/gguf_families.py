"""Hugging Face folders of many families as GGUF: tensors and keys as llama.cpp's converter writes them.

Works on the stored tensors alone, so that it knows nothing of how edgemoe names or changes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_vocabulary import add_tokenizer
from safetensors.numpy import load_file

from helpers.gguf_writing import add_stacks, finish

ARCHITECTURES = {
    "glm4_moe": "glm4moe",
    "solar_open": "glm4moe",
    "dots1": "dots1",
    "minimax_m2": "minimax-m2",
    "ernie4_5_moe": "ernie4_5-moe",
    "hy_v3": "hy_v3",
    "bailing_moe_v2": "bailingmoe2",
    "granitemoe": "granitemoe",
    "granitemoeshared": "granitemoe",
    "qwen3_vl_moe": "qwen3vlmoe",
    "glm4_moe_lite": "deepseek2",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
}
# In order: the first that matches is taken.
_NAMES = (
    (r"model\.embed_tokens\.(\w+)", r"token_embd.\1"),
    (r"model\.word_embeddings\.(\w+)", r"token_embd.\1"),
    (r"model\.layers\.(\d+)\.attention\.query_key_value\.(\w+)", r"blk.\1.attn_qkv.\2"),
    (r"model\.layers\.(\d+)\.attention\.dense\.(\w+)", r"blk.\1.attn_output.\2"),
    (r"model\.layers\.(\d+)\.attention\.(q|k)\w+_layernorm\.(\w+)", r"blk.\1.attn_\2_norm.\3"),
    (r"model\.norm\.(\w+)", r"output_norm.\1"),
    (r"lm_head\.(\w+)", r"output.\1"),
    (r"model\.layers\.(\d+)\.input_layernorm\.(\w+)", r"blk.\1.attn_norm.\2"),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.(\w+)", r"blk.\1.FFN_NORM.\2"),
    (r"model\.layers\.(\d+)\.self_attn\.(q_a|q_b|kv_b)_proj\.(\w+)", r"blk.\1.attn_\2.\3"),
    (r"model\.layers\.(\d+)\.self_attn\.(q|kv)_a_layernorm\.(\w+)", r"blk.\1.attn_\2_a_norm.\3"),
    (r"model\.layers\.(\d+)\.self_attn\.kv_a_proj_with_mqa\.(\w+)", r"blk.\1.attn_kv_a_mqa.\2"),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.(\w+)", r"blk.\1.attn_output.\2"),
    (r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", r"blk.\1.attn_\2.\3"),
    (r"model\.layers\.(\d+)\.self_attn\.([qk])_norm\.(\w+)", r"blk.\1.attn_\2_norm.\3"),
    (r"model\.layers\.(\d+)\..*(?:e_score_correction_bias|expert_bias)", r"blk.\1.exp_probs_b.bias"),
    (r"model\.layers\.(\d+)\.\w+\.(?:router\.)?(?:gate|layer)\.weight", r"blk.\1.ffn_gate_inp.weight"),
    (r"model\.layers\.(\d+)\.mlp\.shared_\w+\.(gate|up|down)_proj\.weight", r"blk.\1.ffn_\2_shexp.weight"),
    (r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"blk.\1.ffn_\2.weight"),
    (r"model\.layers\.(\d+)\.(enorm|hnorm|eh_proj|embed_tokens)\.weight", r"blk.\1.nextn.\2.weight"),
    (r"model\.layers\.(\d+)\.shared_head\.(norm|head)\.weight", r"blk.\1.nextn.shared_head_\2.weight"),
)
_EXPERT = re.compile(r"model\.layers\.(\d+)\.\w+\.experts\.(\d+)\.(\w+)\.weight")
_PROJECTIONS = {"w1": "gate", "w3": "up", "w2": "down"}
_PERMUTED = ("granitemoe", "granitemoeshared")


def write_family_gguf(folder: Path, path: Path, extra_layers: int = 0, is_old: bool = False) -> Path:
    """Write a folder of one of ARCHITECTURES' families as a GGUF file of single precision.

    ``extra_layers``: so many layers for further tokens that are not whole; the folder's own are written.
    ``is_old``: keys and values of latent attention in one tensor, as files before May 2025 have them.
    """
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    config = {**config, **config.get("text_config", {})}
    tensors = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(path, ARCHITECTURES[family])
    num_extra = extra_layers or config.get("num_nextn_predict_layers", 0)
    _add_keys(writer, family, {**config, "is_old": is_old}, num_extra)
    add_tokenizer(writer, folder, config["vocab_size"])
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for name, values in tensors.items():
        if "visual" in name:
            continue
        name = name.replace("model.language_model.", "model.")
        if match := _EXPERT.fullmatch(name):
            projection = _PROJECTIONS.get(match[3], match[3].removesuffix("_proj"))
            stacks.setdefault(f"blk.{match[1]}.ffn_{projection}_exps.weight", {})[int(match[2])] = values
            continue
        for new, part in _converted(name, values, family, {**config, "is_old": is_old}):
            writer.add_tensor(new, np.ascontiguousarray(part, np.float32))
    add_stacks(writer, stacks)
    for layer in range(extra_layers):
        index = config["num_hidden_layers"] + layer
        writer.add_tensor(f"blk.{index}.nextn.enorm.weight", np.ones(config["hidden_size"], np.float32))
    finish(writer)
    return path


def _converted(name: str, values: np.ndarray, family: str, config: dict[str, Any]) -> list[tuple[str, Any]]:
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name):
        prefix, rest = f"blk.{match[1]}", match[2]
        # Granite's stacks and Qwen3-VL's, whose rows are inputs.
        if rest in ("block_sparse_moe.input_linear.weight", "mlp.experts.gate_up_proj"):
            stack = (
                values.swapaxes(1, 2)
                if "mlp" in rest and values.shape[1] == config["hidden_size"]
                else values
            )
            half = stack.shape[1] // 2
            return [
                (f"{prefix}.ffn_gate_exps.weight", stack[:, :half]),
                (f"{prefix}.ffn_up_exps.weight", stack[:, half:]),
            ]
        if rest in ("block_sparse_moe.output_linear.weight", "mlp.experts.down_proj"):
            stack = values if values.shape[1] == config["hidden_size"] else values.swapaxes(1, 2)
            return [(f"{prefix}.ffn_down_exps.weight", stack)]
        if rest == "self_attn.kv_b_proj.weight" and not config["is_old"]:
            plain, rank = config["qk_nope_head_dim"], config["kv_lora_rank"]
            heads = values.reshape(config["num_attention_heads"], -1, rank)
            return [
                (f"{prefix}.attn_k_b.weight", heads[:, :plain].swapaxes(1, 2)),
                (f"{prefix}.attn_v_b.weight", heads[:, plain:]),
            ]
        if rest == "shared_mlp.input_linear.weight":
            half = len(values) // 2
            return [
                (f"{prefix}.ffn_gate_shexp.weight", values[:half]),
                (f"{prefix}.ffn_up_shexp.weight", values[half:]),
            ]
        if rest == "shared_mlp.output_linear.weight":
            return [(f"{prefix}.ffn_down_shexp.weight", values)]
    for pattern, new in _NAMES:
        if re.fullmatch(pattern, name):
            found = re.sub(pattern, new, name)
            norm = "post_attention_norm" if ARCHITECTURES[family] == "glm4moe" else "ffn_norm"
            found = found.replace("FFN_NORM", norm)
            if family in _PERMUTED and re.search(r"attn_[qk]\.", found):
                heads = config["num_attention_heads" if "attn_q" in found else "num_key_value_heads"]
                values = values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
            return [(found, values.ravel() if "exp_probs_b" in found else values)]
    raise AssertionError(f"no GGUF name for {name}")


def _add_keys(writer: gguf.GGUFWriter, family: str, config: dict[str, Any], extra_layers: int) -> None:
    rope = config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"] + extra_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"] if "kv_lora_rank" not in config else 1)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_vocab_size(config["vocab_size"])
    if "kv_lora_rank" not in config:
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    _KEYS[family](writer, config)
    if extra_layers:
        writer.add_uint32(f"{ARCHITECTURES[family]}.nextn_predict_layers", extra_layers)


def _grouped(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """What DeepSeek-V3's followers write."""
    writer.add_expert_count(config.get("n_routed_experts") or config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_feed_forward_length(config.get("intermediate_size", 10240))
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_count(config.get("n_shared_experts") or config["num_shared_experts"])
    writer.add_leading_dense_block_count(
        config.get("first_k_dense_replace", 1 if "mlp_layer_types" in config else 0)
    )
    scale = config.get("routed_scaling_factor") or config["router_scaling_factor"]
    writer.add_expert_weights_scale(scale)
    writer.add_expert_weights_norm(config.get("norm_topk_prob", True))
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if config.get("n_group", 1) > 1:
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])


def _bailing(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    _grouped(writer, config)
    writer.add_expert_shared_feed_forward_length(config["moe_intermediate_size"])


def _latent(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Sizes of latent attention, and of whichever router stands beside it."""
    plain, rotary = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    rank, value = config["kv_lora_rank"], config["v_head_dim"]
    writer.add_rope_dimension_count(rotary)
    writer.add_kv_lora_rank(rank)
    if config["q_lora_rank"]:
        writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_key_length(plain + rotary if config["is_old"] else rank + rotary)
    writer.add_value_length(value if config["is_old"] else rank)
    if not config["is_old"]:
        writer.add_key_length_mla(plain + rotary)
        writer.add_value_length_mla(value)
    rope = config["rope_parameters"]
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    if config["model_type"] != "deepseek_v2":
        # The class of GLM-4.7-Flash has its first layer dense without a key.
        _grouped(writer, {"first_k_dense_replace": 1, **config})
        return
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    if config.get("norm_topk_prob") is not None:
        writer.add_expert_weights_norm(config["norm_topk_prob"])
    if config["topk_method"] == "group_limited_greedy":
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])


def _minimax(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _ernie(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_expert_count(config["moe_num_experts"])
    writer.add_expert_used_count(config["moe_k"])
    writer.add_interleave_moe_layer_step(config["moe_layer_interval"])
    writer.add_leading_dense_block_count(config["moe_layer_start_index"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_count(config["moe_num_shared_experts"])
    # The converter's own formula, right for one model alone.
    writer.add_expert_shared_feed_forward_length(config["intermediate_size"] // config["num_key_value_heads"])


def _granite(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_attention_scale(config["attention_multiplier"])
    writer.add_embedding_scale(config["embedding_multiplier"])
    writer.add_residual_scale(config["residual_multiplier"])
    writer.add_logit_scale(config["logits_scaling"])
    if config.get("shared_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(config["shared_intermediate_size"])


def _qwen3_vl(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_rope_dimension_sections([4, 4, 4, 0])
    writer.add_num_deepstack_layers(1)


_KEYS: dict[str, Callable[[gguf.GGUFWriter, dict[str, Any]], None]] = {
    "glm4_moe": _grouped,
    "solar_open": _grouped,
    "dots1": _grouped,
    "hy_v3": _grouped,
    "bailing_moe_v2": _bailing,
    "minimax_m2": _minimax,
    "ernie4_5_moe": _ernie,
    "granitemoe": _granite,
    "granitemoeshared": _granite,
    "qwen3_vl_moe": _qwen3_vl,
    "glm4_moe_lite": _latent,
    "deepseek_v2": _latent,
    "deepseek_v3": _latent,
}
