"""Tiny random Switch checkpoints, written by transformers itself; see tiny_models.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from helpers.tiny_models import VOCAB_SIZE, write_tokenizer

PAD = 0
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_heads": 4,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "num_sparse_encoder_layers": 2,
    "num_sparse_decoder_layers": 2,
    "num_experts": 8,
    "pad_token_id": PAD,
    "eos_token_id": 2,
    "decoder_start_token_id": PAD,
}
# name -> configuration
VARIATIONS: dict[str, dict[str, Any]] = {
    "base": {**_COMMON},  # as base-8 in proportion: every other layer is sparse
    "all-sparse": {**_COMMON, "num_sparse_encoder_layers": 4, "num_sparse_decoder_layers": 4},
    "unlike-stacks": {
        **_COMMON, "num_decoder_layers": 3, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 3,
    },
    "capacity": {**_COMMON, "expert_capacity": 2},
    "router-bias": {**_COMMON, "router_bias": True, "router_ignore_padding_tokens": True},
    "untied": {**_COMMON, "tie_word_embeddings": False},
    "wide-heads": {**_COMMON, "d_kv": 32, "num_heads": 6, "layer_norm_epsilon": 1e-5},  # as in large
    "odd-sizes": {**_COMMON, "d_model": 72, "d_kv": 20, "num_heads": 3, "d_ff": 44},  # not of the packed rows
    "few-buckets": {
        **_COMMON, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
        "dense_act_fn": "gelu", "decoder_start_token_id": 5,
    },
}  # fmt: skip


def build_switch(variation: str, seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """The transformers model of a variation: f32, eager attention, seeded random weights."""
    config = transformers.SwitchTransformersConfig(**{**VARIATIONS[variation], **changes})
    torch.manual_seed(seed)
    kind = transformers.SwitchTransformersForConditionalGeneration
    model = kind._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "relative_attention_bias" in name or "shared" in name or "embed" in name:
                parameter.normal_(0, 1.0)
            elif name.endswith(".q.weight"):
                # Scores are not divided by the root of the head's dimension: T5 draws queries smaller.
                parameter.normal_(0, 0.15 * config.d_kv**-0.5)
            else:
                parameter.normal_(0, 0.15)
    return model.float().eval()


def write_switch(folder: Path, variation: str, seed: int = 0, **changes: Any) -> Path:
    """Save a variation as a Hugging Face folder with a tokenizer; returns the folder."""
    build_switch(variation, seed, **changes).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
