"""Hugging Face folders of families with mixers or experts of their own, as llama.cpp's converter writes them.

Works on the stored tensors alone, so that it knows nothing of how edgemoe names or changes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_vocabulary import add_tokenizer
from safetensors.numpy import load_file

from helpers.gguf_writing import add_stacks, finish

Array = np.ndarray
Tensors = Iterator[tuple[str, Array]]

_PARTS = ("gate", "up", "down")
_TOP = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "embedding_norm.weight": "token_embd_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "operator_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    **{f"self_attn.{p}_proj.{k}": f"attn_{p}.{k}" for p in "qkv" for k in ("weight", "bias")},
    **{f"self_attn.{o}.{k}": f"attn_output.{k}" for o in ("o_proj", "out_proj") for k in ("weight", "bias")},
    **{f"self_attn.{p}_{n}.weight": f"attn_{p}_norm.weight" for p in "qk" for n in ("norm", "layernorm")},
    "self_attn.sinks": "attn_sinks.weight",
    **{f"mlp.{p}_proj.weight": f"ffn_{p}.weight" for p in _PARTS},
    "feed_forward.w1.weight": "ffn_gate.weight",
    "feed_forward.w3.weight": "ffn_up.weight",
    "feed_forward.w2.weight": "ffn_down.weight",
    **{f"mlp.shared_expert.{p}_proj.weight": f"ffn_{p}_shexp.weight" for p in _PARTS},
    **dict.fromkeys(
        ("mlp.gate.weight", "mlp.router.weight", "feed_forward.gate.weight", "router.proj.weight"),
        "ffn_gate_inp.weight",
    ),
    "mlp.router.bias": "ffn_gate_inp.bias",
    "feed_forward.expert_bias": "exp_probs_b.bias",
    "conv.in_proj.weight": "shortconv.in_proj.weight",
    "conv.out_proj.weight": "shortconv.out_proj.weight",
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
    "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
    "linear_attn.in_proj_ba.weight": "ssm_ba.weight",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.out_proj.weight": "ssm_out.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "layer_scalar": "layer_output_scale.weight",
    **{f"{name}.weight": f"nextn.{name}.weight" for name in ("enorm", "hnorm", "eh_proj")},
    "shared_head.norm.weight": "nextn.shared_head_norm.weight",
}
# What a layer for further tokens has besides, under the names that it would have as one layer more.
_MTP = {
    "fc": "eh_proj",
    "pre_fc_norm_embedding": "enorm",
    "pre_fc_norm_hidden": "hnorm",
    "norm": "shared_head.norm",
}
_EXPERT = re.compile(r"(?:mlp|feed_forward)\.experts\.(\d+)\.(\w+)\.weight")
_OLD = {"w1": "gate", "w3": "up", "w2": "down"}


def write_hybrid_gguf(folder: Path, path: Path) -> Path:
    """Write a folder as a GGUF file of single precision."""
    config = json.loads((folder / "config.json").read_text())
    config = {**config, **config.get("text_config", {})}
    family = config["model_type"]
    architecture, add_keys = _FAMILIES[family]
    tensors, num_layers = load_file(folder / "model.safetensors"), config["num_hidden_layers"]
    num_extra = int(any(name.startswith("mtp.") for name in tensors))
    writer = gguf.GGUFWriter(path, architecture)
    _add_common(writer, config, num_extra)
    add_keys(writer, config)
    if num_extra:
        writer.add_nextn_predict_layers(num_extra)
    if family in ("qwen3_next", "qwen3_5_moe_text"):
        is_delta = [kind == "linear_attention" for kind in config["layer_types"]]
        writer.add_array(f"{architecture}.attention.recurrent_layers", [*is_delta, *([False] * num_extra)])
    add_tokenizer(writer, folder, config["vocab_size"])
    stacks: dict[str, dict[int, Array]] = {}
    for stored, values in tensors.items():
        stored = re.sub(r"mtp\.layers\.0\.", f"layers.{num_layers}.", stored)
        if extra := re.fullmatch(r"mtp\.(\w+)\.weight", stored):
            stored = f"layers.{num_layers}.{_MTP[extra[1]]}.weight"
        name = stored.replace("model.language_model.", "model.").removeprefix("model.")
        if name.startswith("visual."):
            continue
        match = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
        if match is None:
            if name == "lm_head.weight" and config["tie_word_embeddings"]:
                continue
            if family.startswith("qwen3") and name == "norm.weight":
                values = values + 1
            writer.add_tensor(_TOP[name], np.ascontiguousarray(values, np.float32))
            continue
        expert = _EXPERT.fullmatch(match[2])
        if expert is not None:
            part = _OLD.get(expert[2], expert[2].removesuffix("_proj"))
            stacks.setdefault(f"blk.{match[1]}.ffn_{part}_exps.weight", {})[int(expert[1])] = values
            continue
        for new, part in _converted(match[2], values, family, config):
            writer.add_tensor(f"blk.{match[1]}.{new}", np.ascontiguousarray(part, np.float32))
    add_stacks(writer, stacks)
    if family == "gemma4_text":
        pairs = config["global_head_dim"] // 2
        divisors = np.where(np.arange(pairs) < pairs // 4, 1, 1e30)
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    finish(writer)
    return path


def _converted(name: str, values: Array, family: str, config: Mapping[str, Any]) -> Tensors:
    is_qwen = family.startswith("qwen3")
    if name in ("mlp.experts.gate_up_proj", "experts.gate_up_proj", "feed_forward.experts.gate_up_proj"):
        if family == "gpt_oss":  # inputs are rows, gate and up take turns
            rows = values.swapaxes(1, 2)
            yield "ffn_gate_exps.weight", rows[:, 0::2]
            yield "ffn_up_exps.weight", rows[:, 1::2]
            return
        half = values.shape[1] // 2
        yield "ffn_gate_exps.weight", values[:, :half]
        yield "ffn_up_exps.weight", values[:, half:]
    elif name in ("mlp.experts.down_proj", "experts.down_proj", "feed_forward.experts.down_proj"):
        yield "ffn_down_exps.weight", values.swapaxes(1, 2) if family == "gpt_oss" else values
    elif name == "mlp.experts.gate_up_proj_bias":
        yield "ffn_gate_exps.bias", values[:, 0::2]
        yield "ffn_up_exps.bias", values[:, 1::2]
    elif name == "mlp.experts.down_proj_bias":
        yield "ffn_down_exps.bias", values
    elif name == "mlp.shared_expert_gate.weight":
        yield "ffn_gate_inp_shexp.weight", values[0]
    elif name == "conv.conv.weight":
        yield "shortconv.conv.weight", values[:, 0]
    elif name == "linear_attn.conv1d.weight":
        yield "ssm_conv1d.weight", _tiled("ssm_conv1d", values[:, 0], family, config)
    elif name == "linear_attn.A_log":
        yield "ssm_a", _tiled("ssm_a", -np.exp(values), family, config)
    elif name == "linear_attn.in_proj_qkvz.weight":
        yield from _parted(values, config)
    else:
        is_short = is_qwen and name.endswith("norm.weight") and "linear_attn" not in name
        new = _LAYER[name]
        yield new, _tiled(new.split(".")[0], values + 1 if is_short else values, family, config)


def _tiled(name: str, values: Array, family: str, config: Mapping[str, Any]) -> Array:
    """Value heads of Qwen3.5 in the order in which llama.cpp repeats key heads."""
    if family != "qwen3_5_moe_text":
        return values
    keys, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    dim = config["linear_value_head_dim"]

    def reorder(part: Array, size: int) -> Array:
        split = part.reshape(keys, heads // keys, size, *part.shape[1:])
        return split.swapaxes(0, 1).reshape(part.shape)

    before = 2 * keys * config["linear_key_head_dim"]
    if name in ("attn_qkv", "ssm_conv1d"):
        return np.concatenate([values[:before], reorder(values[before:], dim)])
    if name == "attn_gate":
        return reorder(values, dim)
    if name in ("ssm_beta", "ssm_alpha", "ssm_a", "ssm_dt"):
        return reorder(values, 1)
    return reorder(values.T, dim).T if name == "ssm_out" else values


def _parted(values: Array, config: Mapping[str, Any]) -> Tensors:
    """Queries, keys and values of all key heads one after the other; and the gates."""
    keys, ratio = config["linear_num_key_heads"], config["linear_num_value_heads"]
    ratio //= keys
    key_dim, value_dim = config["linear_key_head_dim"], ratio * config["linear_value_head_dim"]
    heads = values.reshape(keys, 2 * key_dim + 2 * value_dim, -1)
    ends = np.cumsum([key_dim, key_dim, value_dim])
    q, k, v, z = (part.reshape(-1, values.shape[1]) for part in np.split(heads, ends, axis=1))
    yield "attn_qkv.weight", np.concatenate([q, k, v])
    yield "attn_gate.weight", z


def _add_common(writer: gguf.GGUFWriter, config: Mapping[str, Any], num_extra: int) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"] + num_extra)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps") or config["norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_count(config.get("num_experts") or config["num_local_experts"])
    writer.add_expert_used_count(config.get("num_experts_per_tok") or config["top_k_experts"])
    writer.add_feed_forward_length(config.get("intermediate_size") or config["moe_intermediate_size"])
    writer.add_expert_feed_forward_length(config.get("moe_intermediate_size") or config["intermediate_size"])


def _add_qwen(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    rope = config["rope_parameters"]
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"])
    turning = int(config["head_dim"] * rope["partial_rotary_factor"])
    writer.add_rope_dimension_count(turning)
    if config["model_type"] != "qwen3_next":
        third = turning // 6
        writer.add_rope_dimension_sections([turning // 2 - 2 * third, third, third, 0])
    writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
    writer.add_ssm_inner_size(config["linear_num_value_heads"] * config["linear_value_head_dim"])
    writer.add_full_attention_interval(4)


def _add_lfm2(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_head_count_kv(
        [config["num_key_value_heads"] if kind == "full_attention" else 0 for kind in config["layer_types"]]
    )
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_shortconv_l_cache(config["conv_L_cache"])
    writer.add_leading_dense_block_count(config["num_dense_layers"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _add_gpt_oss(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    rope = config["rope_parameters"]
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_sliding_window(config["sliding_window"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _add_gemma4(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    is_sliding = [kind == "sliding_attention" for kind in config["layer_types"]]
    full = config["per_layer_config"][str(len(is_sliding) - 1)]
    config["global_head_dim"] = full["head_dim"]  # type: ignore[index]
    writer.add_head_count_kv(
        [config["num_key_value_heads"] if sliding else full["num_key_value_heads"] for sliding in is_sliding]
    )
    writer.add_key_length(full["head_dim"])
    writer.add_value_length(full["head_dim"])
    writer.add_key_length_swa(config["head_dim"])
    writer.add_value_length_swa(config["head_dim"])
    writer.add_rope_dimension_count(full["head_dim"])
    writer.add_rope_dimension_count_swa(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern(is_sliding)
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_embedding_length_per_layer_input(0)
    writer.add_shared_kv_layers(0)


_FAMILIES: dict[str, tuple[str, Callable[[gguf.GGUFWriter, Mapping[str, Any]], None]]] = {
    "qwen3_5_moe_text": ("qwen35moe", _add_qwen),
    "qwen3_next": ("qwen3next", _add_qwen),
    "lfm2_moe": ("lfm2moe", _add_lfm2),
    "gpt_oss": ("gpt-oss", _add_gpt_oss),
    "gemma4_text": ("gemma4", _add_gemma4),
}
