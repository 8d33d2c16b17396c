"""Models in which token i is always followed by a token of our choice: a wrong weight shows in one token.

Letters: V vocabulary, D width; V <= D, so that the embedding can be the identity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCAB_SIZE = WIDTH = 64
NUM_EXPERTS, EXPERT_WIDTH = 2, 32
Weights = dict[str, np.ndarray[Any, Any]]


def chain_config(**more: Any) -> dict[str, Any]:
    """A Mixtral of one layer."""
    return {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "vocab_size": VOCAB_SIZE,
        "hidden_size": WIDTH, "intermediate_size": EXPERT_WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": NUM_EXPERTS,
        "num_experts_per_tok": 1, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, **more,
    }  # fmt: skip


def chain_weights(factor: int = 7, offset: int = 3) -> Weights:
    """Token i is followed by ``factor`` i + ``offset``, modulo V."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray[Any, Any]:
        return (rng.standard_normal(shape) * 0.05).astype(np.float32)

    head = np.zeros((VOCAB_SIZE, WIDTH), np.float32)
    for token in range(VOCAB_SIZE):
        head[follower(token, factor, offset), token] = 1
    layer = "model.layers.0."
    norms = ("model.norm", f"{layer}input_layernorm", f"{layer}post_attention_layernorm")
    weights = {
        "model.embed_tokens.weight": np.eye(VOCAB_SIZE, WIDTH, dtype=np.float32),
        "lm_head.weight": head,
        **{f"{name}.weight": np.ones(WIDTH, np.float32) for name in norms},
        **{f"{layer}self_attn.{p}_proj.weight": random(WIDTH, WIDTH) * (p != "o") for p in "qkvo"},
        f"{layer}block_sparse_moe.gate.weight": random(NUM_EXPERTS, WIDTH),
    }
    for expert in range(NUM_EXPERTS):
        prefix = f"{layer}block_sparse_moe.experts.{expert}."
        for name in ("w1", "w3"):
            weights[f"{prefix}{name}.weight"] = random(EXPERT_WIDTH, WIDTH)
        weights[f"{prefix}w2.weight"] = np.zeros((WIDTH, EXPERT_WIDTH), np.float32)
    return weights


def follower(token: int, factor: int = 7, offset: int = 3) -> int:
    """The token that follows."""
    return (factor * token + offset) % VOCAB_SIZE


def write_chain(folder: Path, weights: Weights | None = None, **config: Any) -> Path:
    """The folder with config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(chain_config(**config)), encoding="utf-8")
    save_file(chain_weights() if weights is None else weights, folder / "model.safetensors")
    return folder
