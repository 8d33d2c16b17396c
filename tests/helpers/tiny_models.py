"""Tiny random checkpoints of every family, written by transformers itself.

``VARIATIONS`` varies every axis of the configuration that the engine reads. Weights are drawn wider than
the default initialisation, so that routing, norms and biases matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from helpers.tiny_grouped import GROUPED, VOCAB_SIZE
from helpers.tiny_hybrids import HYBRIDS
from helpers.tiny_mamba import MAMBAS

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_QWEN = {**_COMMON, "intermediate_size": 96, "moe_intermediate_size": 32, "num_experts": 8}
_QWEN2 = {**_QWEN, "shared_expert_intermediate_size": 64}
_OLMOE = {**_COMMON, "intermediate_size": 32, "num_experts": 8, "pad_token_id": 1}
_MIXTRAL = {**_COMMON, "intermediate_size": 96, "num_local_experts": 4}
_GEMMA4 = {
    **{key: value for key, value in _COMMON.items() if key != "num_experts_per_tok"},
    "num_hidden_layers": 7,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "sliding_window": 7,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "enable_moe_block": True,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_experts": 6,
    "top_k_experts": 3,
    "final_logit_softcapping": 5.0,
}
_GPT_OSS = {
    **_COMMON,
    "intermediate_size": 96,
    "head_dim": 32,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "swiglu_limit": 0.3,  # so that it bites
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 5000.0,
        "factor": 4.0,
        "truncate": False,
        "original_max_position_embeddings": 32,
    },
}


def _rope(kind: str, **scaling: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 5000.0, **scaling}}


_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"factor": 4.0, "original_max_position_embeddings": 32}

# name -> (family, configuration)
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3_moe", {**_QWEN, "head_dim": 32, "norm_topk_prob": True}),
    "qwen3-tied-bias": (
        "qwen3_moe",
        {**_QWEN, "tie_word_embeddings": True, "attention_bias": True, "head_dim": 16},
    ),
    "qwen3-dense-layers": ("qwen3_moe", {**_QWEN, "mlp_only_layers": [1], "decoder_sparse_step": 1}),
    "qwen3-sparse-step": ("qwen3_moe", {**_QWEN, "decoder_sparse_step": 2, "num_hidden_layers": 4}),
    "qwen3-window": ("qwen3_moe", {**_QWEN, "use_sliding_window": True, "sliding_window": 7}),
    "qwen3-linear": ("qwen3_moe", {**_QWEN, **_rope("linear", factor=3.0)}),
    "qwen3-llama3": ("qwen3_moe", {**_QWEN, **_rope("llama3", **_LLAMA3)}),
    "qwen3-yarn": ("qwen3_moe", {**_QWEN, **_rope("yarn", **_YARN)}),
    "qwen3-yarn-attention": (
        "qwen3_moe",
        {**_QWEN, **_rope("yarn", attention_factor=1.3, beta_fast=16.0, **_YARN)},
    ),
    "qwen3-dynamic": ("qwen3_moe", {**_QWEN, **_rope("dynamic", factor=2.0)}),
    "qwen2": ("qwen2_moe", {**_QWEN2}),
    "qwen2-window": (
        "qwen2_moe",
        {**_QWEN2, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
    "qwen2-normed-dense": (
        "qwen2_moe",
        {**_QWEN2, "norm_topk_prob": True, "mlp_only_layers": [0], "qkv_bias": False},
    ),
    "olmoe": ("olmoe", {**_OLMOE}),
    "olmoe-clip": ("olmoe", {**_OLMOE, "clip_qkv": 0.5, "norm_topk_prob": True, "num_key_value_heads": 4}),
    "mixtral": ("mixtral", {**_MIXTRAL}),
    "mixtral-window-heads": (
        "mixtral",
        {**_MIXTRAL, "sliding_window": 6, "head_dim": 32, "tie_word_embeddings": True},
    ),
    "gemma4": ("gemma4_text", {**_GEMMA4}),
    "gemma4-kinds": (
        "gemma4_text",
        {
            **_GEMMA4,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "attention_k_eq_v": False,
            "attention_bias": True,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
            "num_global_key_value_heads": 4,
        },
    ),
    "gpt-oss": ("gpt_oss", {**_GPT_OSS, "sliding_window": 7}),
    "gpt-oss-no-bias": (
        "gpt_oss",
        {
            **_GPT_OSS,
            "attention_bias": False,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "sliding_window": 1,
            "swiglu_alpha": 1.1,
            "tie_word_embeddings": True,
            **_rope("default"),
        },
    ),
}
FAMILIES = {
    "qwen3": "qwen3_moe",
    "qwen2": "qwen2_moe",
    "olmoe": "olmoe",
    "mixtral": "mixtral",
    "gemma4": "gemma4_text",
    "gpt-oss": "gpt_oss",
}
VARIATIONS |= GROUPED | HYBRIDS | MAMBAS
# What all tests of streaming run: each kind of router and residual once.
FAMILIES |= {name: GROUPED[name][0] for name in ("glm4-groups-biases", "granite-shared")}
FAMILIES |= {name: HYBRIDS[name][0] for name in ("qwen3.5", "lfm2")}
FAMILIES |= {"nemotron-latent": MAMBAS["nemotron-latent"][0]}
# One variation of every family, for what is tested of each.
EVERY_FAMILY = tuple({family: name for name, (family, _) in reversed(VARIATIONS.items())}.values())


def build_model(variation: str, seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """The transformers model of a variation: f32, eager attention, seeded random weights."""
    family, fields = VARIATIONS[variation]
    config = transformers.AutoConfig.for_model(family, **{**fields, **changes})
    torch.manual_seed(seed)
    has_text_config = getattr(config, "text_config", None) is not None
    kind = transformers.AutoModelForImageTextToText if has_text_config else transformers.AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="eager", experts_implementation="eager")
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.uniform_(0.5, 1.5)
        for name, parameter in model.named_parameters():
            if family == "gemma4_text" and name.endswith("q_norm.weight"):
                parameter.uniform_(0.1, 0.3)  # the family has no other factor of the scores
            elif name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif "correction_bias" in name or "expert_bias" in name:
                parameter.normal_(0, 0.3)  # enough to change many choices
            else:
                parameter.normal_(0, 0.15)
        for name, buffer in model.named_buffers():
            if "correction_bias" in name or "expert_bias" in name:
                buffer.normal_(0, 0.3)
    return model.float().eval()


def write_checkpoint(
    folder: Path, variation: str, seed: int = 0, dtype: str = "float32", **changes: Any
) -> Path:
    """Save a variation as a Hugging Face folder with a tokenizer; returns the folder."""
    model = build_model(variation, seed, **changes)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of VOCAB_SIZE entries with a ChatML template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Once upon a time there was a small river and a grey stone."] * 8, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    )
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def rewrite_as_old_mixtral(folder: Path) -> None:
    """Rename a Mixtral checkpoint's tensors to ``block_sparse_moe`` with w1, w3, w2."""
    path = folder / "model.safetensors"
    old = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
    renamed = {}
    for name, tensor in load_file(path).items():
        new = name.replace(".mlp.", ".block_sparse_moe.")
        for projection, short in old.items():
            new = new.replace(projection, short)
        renamed[new] = tensor
    save_file(renamed, path)


def rewrite_as_stacked(folder: Path, num_experts: int, num_layers: int) -> None:
    """Fuse per-expert tensors into gate_up_proj (E, 2 F, D) and down_proj (E, D, F)."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for layer in range(num_layers):
        prefix = next(p for p in (f"model.layers.{layer}.mlp", f"model.layers.{layer}.block_sparse_moe")
                      if any(n.startswith(f"{p}.experts.") for n in tensors))  # fmt: skip
        names = ("w1", "w3", "w2") if "block" in prefix else ("gate_proj", "up_proj", "down_proj")

        def take(expert: int, name: str, prefix: str = prefix) -> np.ndarray[Any, Any]:
            return tensors.pop(f"{prefix}.experts.{expert}.{name}.weight")

        parts = [[take(e, n) for n in names] for e in range(num_experts)]
        stacked = f"model.layers.{layer}.mlp.experts"
        tensors[f"{stacked}.gate_up_proj"] = np.stack([np.concatenate(p[:2]) for p in parts])
        tensors[f"{stacked}.down_proj"] = np.stack([p[2] for p in parts])
        if "block" in prefix:
            tensors[f"model.layers.{layer}.mlp.gate.weight"] = tensors.pop(f"{prefix}.gate.weight")
    save_file(tensors, path)
