"""Hugging Face folders of four further families as GGUF: what llama.cpp's converter writes of them.

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

from helpers.gguf_vocabularies import add_key
from helpers.gguf_writing import add_stacks, finish

Config = Mapping[str, Any]

_TOP = {
    "embed_tokens": "token_embd",
    "word_embeddings": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}
# What follows the layer, blocks that differ from family to family left out; the first that matches is taken.
_LAYER = (
    (r"input_layernorm\.(\w+)", r"attn_norm.\1"),
    (r"post_attention_layernorm\.(\w+)", r"ffn_norm.\1"),
    (r"kv_a_layernorm\.weight", "attn_kv_a_norm.weight"),
    (r"q_a_layernorm\.weight", "attn_q_a_norm.weight"),
    (r"kv_a_proj_with_mqa\.weight", "attn_kv_a_mqa.weight"),
    (r"q_(a|b)_proj\.weight", r"attn_q_\1.weight"),
    (r"(?:o_proj|dense)\.(\w+)", r"attn_output.\1"),
    (r"([qkv])_proj\.(\w+)", r"attn_\1.\2"),
    (r"([qkv])_conv1d\.weight", r"ssm_conv1d_\1.weight"),
    (r"(f|g)_(a|b)_proj\.weight", r"ssm_\1_\2.weight"),
    (r"b_proj\.weight", "ssm_beta.weight"),
    (r"f_proj\.weight", "ssm_f_a.weight"),
    (r"A_log", "ssm_a"),
    (r"dt_bias", "ssm_dt.bias"),
    (r"o_norm\.weight", "ssm_norm.weight"),
    (r"attention_sink_bias", "attn_sinks.weight"),
    (r"gate\.weight", "ffn_gate_inp.weight"),
    (r"gate\.(?:e_score_correction_bias|expert_bias)", "exp_probs_b.bias"),
    (r"shared_experts\.(gate|up|down)_proj\.weight", r"ffn_\1_shexp.weight"),
    (r"(gate|up|down)_proj\.weight", r"ffn_\1.weight"),
)
_EXPERT = re.compile(r"experts\.(\d+)\.(\w+)\.weight")
_PROJECTIONS = {"w1": "gate", "w3": "up", "w2": "down"}


def write_further_gguf(folder: Path, path: Path, keys: Mapping[str, Any] | None = None) -> Path:
    """Write a folder as a GGUF file of single precision, with further keys."""
    config = json.loads((folder / "config.json").read_text())
    architecture, add_keys = _FAMILIES[config["model_type"]]
    writer = gguf.GGUFWriter(path, architecture)
    _add_common(writer, config)
    add_keys(writer, config)
    for key, value in (keys or {}).items():
        add_key(writer, key, value)
    add_tokenizer(writer, folder, config["vocab_size"])
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for stored, values in load_file(folder / "model.safetensors").items():
        match = re.fullmatch(
            r"model\.layers\.(\d+)\.(?:self_attn\.|attention\.|mlp\.|block_sparse_moe\.)?(.+)", stored
        )
        if match is None:
            name, kind = stored.removeprefix("model.").split(".")
            writer.add_tensor(f"{_TOP[name]}.{kind}", np.ascontiguousarray(values, np.float32))
            continue
        layer, rest = int(match[1]), match[2]
        if expert := _EXPERT.fullmatch(rest):
            part = _PROJECTIONS.get(expert[2], expert[2].removesuffix("_proj"))
            stacks.setdefault(f"blk.{layer}.ffn_{part}_exps.weight", {})[int(expert[1])] = values
            continue
        for name, part in _converted(rest, layer, values, config):
            writer.add_tensor(f"blk.{layer}.{name}", np.ascontiguousarray(part, np.float32))
    add_stacks(writer, stacks)
    finish(writer)
    return path


def _converted(name: str, layer: int, values: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    if name == "kv_b_proj.weight":
        plain, rank = config["qk_nope_head_dim"], config["kv_lora_rank"]
        heads = values.reshape(config["num_attention_heads"], -1, rank)
        yield "attn_k_b.weight", heads[:, :plain].swapaxes(1, 2)
        yield "attn_v_b.weight", heads[:, plain:]
        return
    if name == "g_proj.weight":  # of heads in latent attention, of entries in the other
        yield f"{'attn_gate' if _is_full(config, layer) else 'ssm_g_a'}.weight", values
        return
    if name.endswith("conv1d.weight"):
        values = values.reshape(1, len(values), 1, -1)
    if name == "A_log":
        values = np.exp(values).reshape(-1, 1)
        values = -values if config["model_type"] == "kimi_linear" else values
    for pattern, new in _LAYER:
        if re.fullmatch(pattern, name):
            yield re.sub(pattern, new, name), values
            return
    raise AssertionError(f"no GGUF name for {name}")


def _is_full(config: Config, layer: int) -> bool:
    return config["layer_types"][layer] == "full_attention"


def _add_common(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_context_length(config.get("model_max_length") or config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    counts = ("num_local_experts", "num_experts", "n_routed_experts")
    writer.add_expert_count(next(config[key] for key in counts if key in config))
    writer.add_expert_used_count(config.get("num_experts_per_token") or config["num_experts_per_tok"])


def _add_delta(writer: gguf.GGUFWriter, config: Config) -> None:
    """What both families with Kimi delta attention write."""
    layers = range(config["num_hidden_layers"])
    writer.add_head_count_kv([int(_is_full(config, layer)) for layer in layers])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_kda_head_dim(config["linear_head_dim"])
    plain, rotary = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    if config.get("q_lora_rank"):
        writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(config["kv_lora_rank"])
    writer.add_rope_dimension_count(rotary)
    writer.add_key_length(config["kv_lora_rank"] + rotary)
    writer.add_key_length_mla(plain + rotary)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_count(config["num_shared_experts"])
    writer.add_leading_dense_block_count(config["mlp_layer_types"].count("dense"))
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if config["num_expert_group"] > 1:
        writer.add_expert_group_count(config["num_expert_group"])
        writer.add_expert_group_used_count(config["topk_group"])


def _add_ling(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_delta(writer, config)
    # Keys that the installed gguf library has no methods for yet.
    writer.add_bool("bailingmoe3.kda.safe_gate", config["kda_safe_gate"])
    writer.add_float32("bailingmoe3.kda.gate_lower_bound", config["kda_lower_bound"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_expert_weights_norm(config["moe_renormalize"])
    writer.add_expert_shared_feed_forward_length(config["moe_intermediate_size"])


def _add_mimo(writer: gguf.GGUFWriter, config: Config) -> None:
    slides = [kind == "sliding_attention" for kind in config["layer_types"]]
    heads, rope = config["num_key_value_heads"], config["rope_parameters"]
    writer.add_head_count_kv([heads * (2 if is_sliding else 1) for is_sliding in slides])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern(slides)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["v_head_dim"])
    share = rope["full_attention"]["partial_rotary_factor"]
    writer.add_rope_dimension_count(int(config["head_dim"] * share))
    writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
    writer.add_float32("mimo2.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
    writer.add_float32("mimo2.attention.value_scale", config["attention_value_scale"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _add_phi(writer: gguf.GGUFWriter, config: Config) -> None:
    rope, heads = config["rope_parameters"], config["num_attention_heads"]
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_attn_factors(rope["short_mscale"])
    writer.add_sliding_window(config["sliding_window"] or 0)
    for kind in ("short", "long"):
        writer.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], np.float32))


_FAMILIES: dict[str, tuple[str, Callable[[gguf.GGUFWriter, Config], None]]] = {
    "kimi_linear": ("kimi-linear", _add_delta),
    "bailing_hybrid": ("bailingmoe3", _add_ling),
    "mimo_v2_flash": ("mimo2", _add_mimo),
    "phimoe": ("phimoe", _add_phi),
}
