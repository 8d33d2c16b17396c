"""Qwen3.5 and Qwen3.6, their text part: gated delta nets, and gated attention in every fourth layer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import MODULE, Family
from edgemoe.models.families.fields import read_model, read_moe
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.hybrid_fields import (
    GGUF_IGNORED,
    GGUF_KEYS,
    GGUF_LAYERS,
    GGUF_PER_LAYER,
    LAYERS,
    TOP_NORM,
    finish_delta,
    read_mixers,
    read_shared,
    says_delta,
)
from edgemoe.models.families.names import MTP, VISION, Name, Steps, hugging_face
from edgemoe.models.mixers.delta_net import GatedDeltaNetSpec
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec
from edgemoe.source_ref import TakeColumns, TakeRows


def read_qwen3_5(reader: ConfigReader) -> ModelSpec:
    """Spec of the ``qwen3_5_moe_text`` part of a configuration; weights of chosen experts sum to 1."""
    reader.refuse("mlp_only_layers", ([],), "every layer has experts in this family")
    router = RouterSpec(
        reader.require_size("num_experts"), reader.require_size("num_experts_per_tok"), "softmax", True
    )
    moe = replace(read_moe(reader, router), shared=read_shared(reader))
    layers = tuple(LayerSpec(mixer, moe) for mixer in read_mixers(reader))
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0, default_share=0.25)


def _delta(spec: ModelSpec, layer: int) -> GatedDeltaNetSpec:
    delta = spec.layers[layer].mixer
    assert isinstance(delta, GatedDeltaNetSpec)
    return delta


def _heads(spec: ModelSpec, layer: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where GGUF files have each value head: they go through the key heads first."""
    delta = _delta(spec, layer)
    ratio = delta.num_value_heads // delta.num_key_heads
    head = np.arange(delta.num_value_heads)
    return head % ratio * delta.num_key_heads + head // ratio


def _entries(spec: ModelSpec, layer: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where they have each entry of all value heads."""
    dim = _delta(spec, layer).value_dim
    return (_heads(spec, layer)[:, None] * dim + np.arange(dim)).ravel()


def _by_head(spec: ModelSpec, layer: int) -> Steps:
    return (TakeRows(_heads(spec, layer)),)


def _by_entry(spec: ModelSpec, layer: int) -> Steps:
    return (TakeRows(_entries(spec, layer)),)


def _columns_by_entry(spec: ModelSpec, layer: int) -> Steps:
    return (TakeColumns(_entries(spec, layer)),)


def _values_by_entry(spec: ModelSpec, layer: int) -> Steps:
    """Rows of queries and keys stay, those of values follow."""
    delta = _delta(spec, layer)
    before = 2 * delta.num_key_heads * delta.key_dim
    return (TakeRows(np.concatenate([np.arange(before), before + _entries(spec, layer)])),)


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    finish_delta(own, config)


FAMILY = Family(
    "Qwen3.5, Qwen3.6 (text)",
    ("qwen3_5_moe_text",),
    read_qwen3_5,
    hugging_face(
        {
            **LAYERS,
            "delta.qkv.weight": ("linear_attn.in_proj_qkv.weight",),
            "delta.z.weight": ("linear_attn.in_proj_z.weight",),
            "delta.beta.weight": ("linear_attn.in_proj_b.weight",),
            "delta.alpha.weight": ("linear_attn.in_proj_a.weight",),
        },
        prefixes=("model.language_model.", "model.", "language_model.model."),
        ignored={r"(model\.)?visual\..+": VISION, r"(model\.)?mtp\..+": MTP},
    ).with_top(TOP_NORM),
    GgufFamily(
        "qwen35moe",
        {**KEYS, **GGUF_KEYS},
        gguf_table(
            {
                **GGUF_LAYERS,
                "delta.qkv.weight": (Name("attn_qkv.weight", _values_by_entry),),
                "delta.z.weight": (Name("attn_gate.weight", _by_entry),),
                "delta.beta.weight": (Name("ssm_beta.weight", _by_head),),
                "delta.alpha.weight": (Name("ssm_alpha.weight", _by_head),),
                "delta.decay": (Name("ssm_a", _by_head),),
                "delta.dt_bias": (Name("ssm_dt.bias", _by_head),),
                "delta.conv.weight": (Name("ssm_conv1d.weight", _values_by_entry),),
                "delta.out.weight": (Name("ssm_out.weight", _columns_by_entry),),
            },
            extra_layers=MTP,
        ),
        ignored=(*GGUF_IGNORED, "expert_weights_norm"),
        per_layer=GGUF_PER_LAYER,
        finish=_finish,
        says=says_delta,
    ),
    holders=("qwen3_5_moe",),
    defaults={
        "vocab_size": 248320,
        "hidden_size": 2048,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "moe_intermediate_size": 512,
        "num_experts_per_tok": 8,
        "num_experts": 256,
    },
    unused=("norm_topk_prob", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "intermediate_size"),
    mtp=MODULE,
)
