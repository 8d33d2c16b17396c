"""Hugging Face folders rewritten as GGUF files, named as llama.cpp's converter names things."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize
from gguf_vocabulary import add_tokenizer

from edgemoe.checkpoint import open_checkpoint
from edgemoe.models import find_sources, read_spec
from helpers.exact_blocks import random_blocks

ARCHITECTURES = {"qwen3_moe": "qwen3moe", "qwen2_moe": "qwen2moe", "olmoe": "olmoe", "mixtral": "llama"}
_DENSE = {
    "attention.q.weight": "attn_q.weight",
    "attention.k.weight": "attn_k.weight",
    "attention.v.weight": "attn_v.weight",
    "attention.o.weight": "attn_output.weight",
    "attention.q.bias": "attn_q.bias",
    "attention.k.bias": "attn_k.bias",
    "attention.v.bias": "attn_v.bias",
    "attention.q_norm.weight": "attn_q_norm.weight",
    "attention.k_norm.weight": "attn_k_norm.weight",
    "attention_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "router.weight": "ffn_gate_inp.weight",
    "shared_gate.weight": "ffn_gate_inp_shexp.weight",
    **{f"shared.{p}.weight": f"ffn_{p}_shexp.weight" for p in ("gate", "up", "down")},
}
_TOP = {
    "embed.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
}

TypeOf = Callable[[str], Type]


def _blocks(values: np.ndarray, kind: Type) -> np.ndarray:
    """Values in blocks; of types that the library only reads, any blocks."""
    try:
        return quantize(values, kind)
    except NotImplementedError:
        *entries, rows, cols = values.shape
        flat = random_blocks(kind.name, math.prod(entries) * rows, cols)
        return flat.reshape(*entries, rows, -1)


def write_gguf(
    folder: Path,
    path: Path,
    type_of: TypeOf = lambda name: Type.F32,
    *,
    changes: Mapping[str, int] | None = None,
    split_tensors: int = 0,
    is_stacked: bool = True,
) -> Path:
    """Write a checkpoint folder as GGUF; matrices get the type that ``type_of(name)`` says.

    ``changes`` overwrites integer metadata. With ``split_tensors`` the file is split after so many tensors.
    Returns the (first) file.
    """
    source = open_checkpoint(folder)
    config = source.config()
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split_tensors)
    _add_config(writer, architecture, config)
    for key, value in (changes or {}).items():
        writer.add_uint32(key, value)
    add_tokenizer(writer, folder, config["vocab_size"])
    spec = read_spec(config)
    sources = find_sources(spec, {name: info.shape for name, info in source.tensors().items()})

    def add(name: str, values: np.ndarray) -> None:
        kind = Type.F32 if values.ndim == 1 or "gate_inp" in name else type_of(name)
        writer.add_tensor(name, _blocks(values, kind), raw_dtype=kind)

    for tensor in spec.dense_tensors():
        values = source.read(sources.dense[tensor.name])
        if tensor.name in _TOP:
            add(_TOP[tensor.name], values)
            continue
        _, layer, rest = tensor.name.split(".", 2)
        if architecture == "llama" and rest in ("attention.q.weight", "attention.k.weight"):
            heads = spec.layers[0].mixer
            values = _side_by_side(values, heads.num_heads if ".q." in rest else heads.num_kv_heads)
        add(f"blk.{layer}.{_DENSE[rest]}", values[0] if rest == "shared_gate.weight" else values)
    for layer in spec.moe_layers:
        for projection in ("gate", "up", "down"):
            parts = [
                source.read(sources.experts[layer, expert, projection])
                for expert in range(spec.moe(layer).router.num_experts)
            ]
            if is_stacked:
                add(f"blk.{layer}.ffn_{projection}_exps.weight", np.stack(parts))
            else:
                for expert, part in enumerate(parts):
                    add(f"blk.{layer}.ffn_{projection}.{expert}.weight", part)
    source.close()
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not split_tensors:
        return path
    return sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))[0]


def _add_config(writer: gguf.GGUFWriter, architecture: str, config: dict[str, Any]) -> None:
    width, num_heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_count(config.get("num_experts") or config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_feed_forward_length(config["intermediate_size"])
    head_dim = config.get("head_dim") or width // num_heads
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if "norm_topk_prob" in config:
        writer.add_expert_weights_norm(config["norm_topk_prob"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in config:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if rope.get("rope_type", "default") != "default":
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if "original_max_position_embeddings" in rope:
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _side_by_side(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows in the order that llama.cpp rotates for Llama: the two of a pair side by side."""
    rows, cols = values.shape
    return values.reshape(num_heads, 2, rows // num_heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)
