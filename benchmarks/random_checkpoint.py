"""Writes a Qwen3-MoE checkpoint of random bf16 weights, of any size, without ever holding it in memory."""

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
    """Configuration of the family; the vocabulary is that of the embedded demo, whose tokenizer is used."""
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


def _tensors(c: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
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


def write_checkpoint(folder: Path, c: dict[str, Any], seed: int = 0) -> int:
    """Write the checkpoint; returns the bytes of its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(c))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(str(files("edgemoe") / "demo_store" / name), folder / name)
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(_POOL_VALUES).astype(np.float32) * np.float32(0.02)
    pool = (normal.view(np.uint32) >> 16).astype(np.uint16)
    one = np.uint16(np.float32(1).view(np.uint32) >> 16)
    header, offset = {}, 0
    for name, shape in _tensors(c):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in _tensors(c):
            left = int(np.prod(shape))
            if name.endswith("norm.weight"):
                file.write(np.full(left, one).tobytes())
                continue
            start = int(rng.integers(len(pool)))
            while left > 0:
                piece = pool[start : start + left]
                file.write(piece.tobytes())
                left, start = left - len(piece), 0
    return offset
