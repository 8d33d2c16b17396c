"""GGUF files of a one-layer model with a given vocabulary, and llama.cpp's tokens for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from helpers.gguf_writing import finish

WIDTH, INNER, EXPERTS = 64, 32, 2


def write_model(
    path: Path,
    tokens: Sequence[str],
    *,
    architecture: str = "llama",
    model: str = "gpt2",
    pre: str | None = None,
    merges: Sequence[str] | None = (),
    kinds: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    keys: Mapping[str, Any] | None = None,
    skip: Sequence[str] = (),
    tensors: Mapping[str, np.ndarray] | None = None,
    endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> Path:
    """Write a file; ``keys`` are added as they are, those whose end is in ``skip`` left out."""
    writer = gguf.GGUFWriter(path, architecture, endianess=endian)
    numbers = {
        "context_length": 128, "embedding_length": WIDTH, "block_count": 1, "feed_forward_length": INNER,
        "expert_feed_forward_length": INNER, "attention.head_count": 2, "attention.head_count_kv": 2,
        "expert_count": EXPERTS, "expert_used_count": 1,
    }  # fmt: skip
    if architecture in ("llama", "olmoe"):
        del numbers["expert_feed_forward_length"]
    for name, number in numbers.items():
        if name not in skip:
            writer.add_uint32(f"{architecture}.{name}", number)
    for name, value in (("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 10000.0)):
        if name not in skip:
            writer.add_float32(f"{architecture}.{name}", value)
    writer.add_tokenizer_model(model)
    writer.add_token_list(list(tokens))
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    if merges is not None:
        writer.add_token_merges(list(merges) or [f"{tokens[0]} {tokens[0]}"] * (model == "gpt2"))
    if kinds is not None:
        writer.add_token_types(list(kinds))
    if scores is not None:
        writer.add_token_scores(list(scores))
    for key, value in (keys or {}).items():
        add_key(writer, key, value)
    for name, value in {**make_tensors(len(tokens), architecture), **(tensors or {})}.items():
        if value is not None:
            writer.add_tensor(name, value.copy())
    finish(writer)
    return path


def add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """One key, of the type that its value has."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def make_tensors(num_tokens: int, architecture: str = "llama") -> dict[str, np.ndarray]:
    """Random weights by llama.cpp's names."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (num_tokens, WIDTH), "output": (num_tokens, WIDTH), "output_norm": (WIDTH,),
        "blk.0.attn_norm": (WIDTH,), "blk.0.ffn_norm": (WIDTH,), "blk.0.ffn_gate_inp": (EXPERTS, WIDTH),
        **{f"blk.0.attn_{p}": (WIDTH, WIDTH) for p in ("q", "k", "v", "output")},
        "blk.0.ffn_gate_exps": (EXPERTS, INNER, WIDTH), "blk.0.ffn_up_exps": (EXPERTS, INNER, WIDTH),
        "blk.0.ffn_down_exps": (EXPERTS, WIDTH, INNER),
    }  # fmt: skip
    tensors = {f"{n}.weight": rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    if architecture == "qwen3moe":
        tensors |= {f"blk.0.attn_{p}_norm.weight": np.ones(WIDTH // 2, np.float32) for p in "qk"}
    if architecture == "qwen2moe":
        tensors |= {f"blk.0.attn_{p}.bias": np.ones(WIDTH, np.float32) for p in "qkv"}
        tensors["blk.0.ffn_gate_inp_shexp.weight"] = np.ones(WIDTH, np.float32)
        tensors["blk.0.ffn_down_shexp.weight"] = np.ones((WIDTH, 2 * INNER), np.float32)
        for part in ("gate", "up"):
            tensors[f"blk.0.ffn_{part}_shexp.weight"] = np.ones((2 * INNER, WIDTH), np.float32)
    return tensors


def llama_cpp_tokens(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """What llama.cpp makes of the texts, with the tokens that it puts around them."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        return [model.tokenize(text.encode(), add_bos=True, special=True) for text in texts]
    finally:
        model.close()
