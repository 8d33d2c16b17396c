"""Writes a Qwen3-MoE or Switch checkpoint of random bf16 weights, of any size, never holding it in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1024**2
# Bytes of random numbers that are repeated: drawing gigabytes anew would take longer than what is measured.
_POOL_VALUES = 4 * MIB


def config(num_layers: int, width: int, expert_width: int, num_experts: int, top_k: int) -> dict[str, Any]:
    """A Qwen3-MoE's; the vocabulary is that of the embedded demo, whose tokenizer is used."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": json.loads((files("edgemoe") / "demo_store" / "config.json").read_text())["vocab_size"],
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "moe_intermediate_size": expert_width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": max(1, width // 256),
        "head_dim": 64,
        "num_experts": num_experts,
        "num_experts_per_tok": top_k,
        "norm_topk_prob": True,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
    }


def switch_config(num_experts: int, is_large: bool = False) -> dict[str, Any]:
    """That of google/switch-base-N or switch-large-N: every other layer is sparse."""
    layers, width, inner, heads = (24, 1024, 4096, 16) if is_large else (12, 768, 3072, 12)
    return {
        "architectures": ["SwitchTransformersForConditionalGeneration"],
        "model_type": "switch_transformers",
        "is_encoder_decoder": True,
        "vocab_size": 32128,
        "d_model": width,
        "d_kv": 64,
        "d_ff": inner,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "num_experts": num_experts,
        "num_sparse_encoder_layers": layers // 2,
        "num_sparse_decoder_layers": layers // 2,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
    }


def tensors(c: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a configuration's tensors."""
    yield from _switch_tensors(c) if "d_model" in c else _qwen_tensors(c)


def _switch_tensors(c: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, heads = c["d_model"], c["d_ff"], c["num_heads"]
    yield "shared.weight", (c["vocab_size"], width)
    for stack in ("encoder", "decoder"):
        attentions = ("SelfAttention",) if stack == "encoder" else ("SelfAttention", "EncDecAttention")
        yield f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, heads)
        for layer in range(c["num_layers"]):
            prefix = f"{stack}.block.{layer}.layer"
            for place, attention in enumerate(attentions):
                for name in "qkvo":
                    yield f"{prefix}.{place}.{attention}.{name}.weight", (width, width)
            for place in range(len(attentions) + 1):
                yield f"{prefix}.{place}.layer_norm.weight", (width,)
            mlp, experts = f"{prefix}.{len(attentions)}.mlp", [""]
            if layer % 2:
                yield f"{mlp}.router.classifier.weight", (c["num_experts"], width)
                experts = [f".experts.expert_{expert}" for expert in range(c["num_experts"])]
            for expert in experts:
                yield f"{mlp}{expert}.wi.weight", (inner, width)
                yield f"{mlp}{expert}.wo.weight", (width, inner)
        yield f"{stack}.final_layer_norm.weight", (width,)


def _qwen_tensors(c: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = c["hidden_size"], c["moe_intermediate_size"]
    q, kv = c["num_attention_heads"] * 64, c["num_key_value_heads"] * 64
    yield "model.embed_tokens.weight", (c["vocab_size"], width)
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, width)
        yield f"{prefix}.self_attn.o_proj.weight", (width, q)
        for name in ("q", "k"):
            yield f"{prefix}.self_attn.{name}_norm.weight", (64,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", (width,)
        yield f"{prefix}.mlp.gate.weight", (c["num_experts"], width)
        for expert in range(c["num_experts"]):
            for name, shape in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
                yield f"{prefix}.mlp.experts.{expert}.{name}_proj.weight", shape
    yield "model.norm.weight", (width,)


def _bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of floats."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write_checkpoint(folder: Path, c: dict[str, Any], seed: int = 0) -> int:
    """Write the checkpoint; returns the bytes of its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(c))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(str(files("edgemoe") / "demo_store" / name), folder / name)
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(_POOL_VALUES).astype(np.float32)
    small, wide = (_bf16(normal * np.float32(spread)) for spread in (0.02, 1))
    one = np.uint16(np.float32(1).view(np.uint32) >> 16)
    header, offset = {}, 0
    for name, shape in tensors(c):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors(c):
            left = int(np.prod(shape))
            if name.endswith("norm.weight"):
                file.write(np.full(left, one).tobytes())
                continue
            # T5's embedding is as wide as this; were it small, all tokens would be routed alike.
            pool = wide if name == "shared.weight" else small
            start = int(rng.integers(len(pool)))
            while left > 0:
                piece = pool[start : start + left]
                file.write(piece.tobytes())
                left, start = left - len(piece), 0
    return offset
