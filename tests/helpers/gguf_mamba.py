"""Hugging Face folders of families with Mamba-2 layers as GGUF, as llama.cpp's converter writes them.

Works on the stored tensors alone, so that it knows nothing of how edgemoe names or changes them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_vocabulary import add_tokenizer
from safetensors.numpy import load_file

from helpers.gguf_writing import add_stacks, finish

_ARCHITECTURES = {"granitemoehybrid": "granitehybrid", "nemotron_h": "nemotron_h_moe"}
# Of what follows the layer; in order: the first that matches is taken.
_LAYER_NAMES = (
    (r"input_layernorm\.weight|norm\.weight", "attn_norm.weight"),
    (r"post_attention_layernorm\.weight", "ffn_norm.weight"),
    (r"(?:mamba|mixer)\.in_proj\.(\w+)", r"ssm_in.\1"),
    (r"(?:mamba|mixer)\.out_proj\.(\w+)", r"ssm_out.\1"),
    (r"(?:mamba|mixer)\.conv1d\.(\w+)", r"ssm_conv1d.\1"),
    (r"(?:mamba|mixer)\.A_log", "ssm_a"),
    (r"(?:mamba|mixer)\.D", "ssm_d"),
    (r"(?:mamba|mixer)\.dt_bias", "ssm_dt.bias"),
    (r"(?:mamba|mixer)\.norm\.weight", "ssm_norm.weight"),
    (r"(?:self_attn|mixer)\.o_proj\.(\w+)", r"attn_output.\1"),
    (r"(?:self_attn|mixer)\.([qkv])_proj\.(\w+)", r"attn_\1.\2"),
    (r"block_sparse_moe\.router(?:\.layer)?\.weight|mixer\.gate\.weight", "ffn_gate_inp.weight"),
    (r"mixer\.gate\.e_score_correction_bias", "exp_probs_b.bias"),
    (r"mixer\.shared_experts\.(up|down)_proj\.weight", r"ffn_\1_shexp.weight"),
    (r"shared_mlp\.output_linear\.weight", "ffn_down_shexp.weight"),
    (r"mixer\.(up|down)_proj\.weight", r"ffn_\1.weight"),
    (r"mixer\.fc1_latent_proj\.weight", "ffn_latent_down.weight"),
    (r"mixer\.fc2_latent_proj\.weight", "ffn_latent_up.weight"),
    (r"block_sparse_moe\.(?:output_linear\.weight|experts\.down_proj)", "ffn_down_exps.weight"),
    (r"mixer\.experts\.(up|down)_proj", r"ffn_\1_exps.weight"),
)
_TOP = {
    "embed_tokens.weight": "token_embd.weight",
    "embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "norm_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_EXPERT = re.compile(r"layers\.(\d+)\.mixer\.experts\.(\d+)\.(up|down)_proj\.weight")
# Two halves, one after the other.
_HALVES = {
    "block_sparse_moe.input_linear.weight": "exps",
    "block_sparse_moe.experts.gate_up_proj": "exps",
    "shared_mlp.input_linear.weight": "shexp",
}


def write_mamba_gguf(folder: Path, path: Path) -> Path:
    """Write a folder as a GGUF file of single precision."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, _ARCHITECTURES[config["model_type"]])
    _add_keys(writer, config)
    add_tokenizer(writer, folder, config["vocab_size"])
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for name, values in load_file(folder / "model.safetensors").items():
        name = re.sub(r"^(model|backbone)\.", "", name)
        if match := _EXPERT.fullmatch(name):
            stacks.setdefault(f"blk.{match[1]}.ffn_{match[3]}_exps.weight", {})[int(match[2])] = values
            continue
        for new, part in _converted(name, values, config):
            writer.add_tensor(new, np.ascontiguousarray(part, np.float32))
    add_stacks(writer, stacks)
    finish(writer)
    return path


def _converted(name: str, values: np.ndarray, config: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    if match is None:
        return [(_TOP[name], values)]
    prefix, rest = f"blk.{match[1]}", match[2]
    if rest in _HALVES:
        half, axis = values.shape[-2] // 2, values.ndim - 2
        gate, up = np.split(values, [half], axis=axis)
        return [
            (f"{prefix}.ffn_{n}_{_HALVES[rest]}.weight", part) for n, part in (("gate", gate), ("up", up))
        ]
    for pattern, new in _LAYER_NAMES:
        if re.fullmatch(pattern, rest):
            found = re.sub(pattern, new, rest)
            return [(f"{prefix}.{found}", _changed(found, values, config))]
    raise AssertionError(f"no GGUF name for {name}")


def _changed(name: str, values: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    if name == "ssm_a":
        return -np.exp(values)[:, None]
    if name == "ssm_d":
        return values[:, None]
    if name == "ssm_norm.weight":
        return values.reshape(config.get("mamba_n_groups") or config["n_groups"], -1)
    if name == "ssm_conv1d.weight":
        return values[:, 0]
    if name.startswith(("attn_q.", "attn_k.")):
        heads = config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
        return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    return values


def _add_keys(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if config["model_type"] == "granitemoehybrid":
        _add_granite(writer, config)
    else:
        _add_nemotron(writer, config)


def _add_mamba(writer: gguf.GGUFWriter, heads: int, dim: int, groups: int, state: int, taps: int) -> None:
    writer.add_ssm_conv_kernel(taps)
    writer.add_ssm_state_size(state)
    writer.add_ssm_group_count(groups)
    writer.add_ssm_inner_size(heads * dim)
    writer.add_ssm_time_step_rank(heads)


def _add_granite(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    kinds = config["layer_types"]
    kv_heads = config["num_key_value_heads"]
    writer.add_block_count(len(kinds))
    writer.add_head_count_kv([0 if kind in ("linear_attention", "mamba") else kv_heads for kind in kinds])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_shared_feed_forward_length(config["shared_intermediate_size"])
    writer.add_attention_scale(config["attention_multiplier"])
    writer.add_embedding_scale(config["embedding_multiplier"])
    writer.add_residual_scale(config["residual_multiplier"])
    writer.add_logit_scale(config["logits_scaling"])
    rotates = config.get("position_embedding_type") == "rope"
    writer.add_rope_scaling_finetuned(rotates)
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    if rotates:
        writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    _add_mamba(
        writer, *(config[f"mamba_{k}"] for k in ("n_heads", "d_head", "n_groups", "d_state", "d_conv"))
    )


def _add_nemotron(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    kinds = config["layers_block_type"]
    networks = {"moe": config["moe_intermediate_size"], "mlp": config["intermediate_size"]}
    writer.add_block_count(len(kinds))
    writer.add_head_count_kv([config["num_key_value_heads"] * (kind == "full_attention") for kind in kinds])
    writer.add_feed_forward_length([networks.get(kind, 0) for kind in kinds])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_expert_count(config["n_routed_experts"])
    if config["moe_latent_size"] is not None:
        writer.add_moe_latent_size(config["moe_latent_size"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_feed_forward_length(config["moe_shared_expert_intermediate_size"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    sizes = ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel")
    _add_mamba(writer, *(config[key] for key in sizes))
