"""Qwen3-Next: gated delta nets with projections stored per key head, and some gated attention layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import MODULE, Family
from edgemoe.models.families.fields import read_mlp, read_model, read_moe
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
from edgemoe.models.families.names import MLP, MTP, Name, Steps, hugging_face
from edgemoe.models.mixers.delta_net import GatedDeltaNetSpec
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec
from edgemoe.source_ref import TakeRows


def read_qwen3_next(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``qwen3_next`` configuration."""
    router = RouterSpec(
        reader.require_size("num_experts"),
        reader.require_size("num_experts_per_tok"),
        "softmax",
        reader.flag("norm_topk_prob", True),
    )
    moe = replace(read_moe(reader, router), shared=read_shared(reader))
    dense, step = read_mlp(reader), reader.size("decoder_sparse_step", 1)
    only_dense = set(reader.sizes("mlp_only_layers"))
    layers = tuple(
        LayerSpec(mixer, dense if index in only_dense or (index + 1) % step else moe)
        for index, mixer in enumerate(read_mixers(reader))
    )
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0, default_share=0.25)


def _groups(spec: ModelSpec, layer: int, parts: tuple[str, ...], sizes: dict[str, int]) -> Steps:
    """Rows of these parts, one after the other, of a matrix that has all ``sizes`` for each key head."""
    delta = spec.layers[layer].mixer
    assert isinstance(delta, GatedDeltaNetSpec)
    total, starts = sum(sizes.values()), dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    heads = np.arange(delta.num_key_heads)[:, None] * total
    rows = [(heads + starts[part] + np.arange(sizes[part])).ravel() for part in parts]
    return (TakeRows(np.concatenate(rows)),)


def _sizes(spec: ModelSpec, layer: int) -> dict[str, int]:
    delta = spec.layers[layer].mixer
    assert isinstance(delta, GatedDeltaNetSpec)
    values = delta.num_value_heads // delta.num_key_heads * delta.value_dim
    return {"q": delta.key_dim, "k": delta.key_dim, "v": values, "z": values}


def _rates(spec: ModelSpec, layer: int) -> dict[str, int]:
    delta = spec.layers[layer].mixer
    assert isinstance(delta, GatedDeltaNetSpec)
    ratio = delta.num_value_heads // delta.num_key_heads
    return {"b": ratio, "a": ratio}


def _qkv(spec: ModelSpec, layer: int) -> Steps:
    return _groups(spec, layer, ("q", "k", "v"), _sizes(spec, layer))


def _z(spec: ModelSpec, layer: int) -> Steps:
    return _groups(spec, layer, ("z",), _sizes(spec, layer))


def _beta(spec: ModelSpec, layer: int) -> Steps:
    return _groups(spec, layer, ("b",), _rates(spec, layer))


def _alpha(spec: ModelSpec, layer: int) -> Steps:
    return _groups(spec, layer, ("a",), _rates(spec, layer))


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    finish_delta(own, config)
    if "blk.0.ssm_in.weight" in names:
        raise UnsupportedModelError("an old GGUF file of Qwen3-Next, with ssm_in; fetch a newer one")


FAMILY = Family(
    "Qwen3-Next, Qwen3-Coder-Next",
    ("qwen3_next",),
    read_qwen3_next,
    hugging_face(
        {
            **MLP,
            **LAYERS,
            "delta.qkv.weight": (Name("linear_attn.in_proj_qkvz.weight", _qkv),),
            "delta.z.weight": (Name("linear_attn.in_proj_qkvz.weight", _z),),
            "delta.beta.weight": (Name("linear_attn.in_proj_ba.weight", _beta),),
            "delta.alpha.weight": (Name("linear_attn.in_proj_ba.weight", _alpha),),
        },
        ignored={r"(model\.)?mtp\..+": MTP},
    ).with_top(TOP_NORM),
    GgufFamily(
        "qwen3next",
        {**KEYS, **GGUF_KEYS, "expert_weights_norm": "norm_topk_prob"},
        gguf_table(
            {
                **GGUF_LAYERS,
                "delta.beta.weight": (Name("ssm_ba.weight", _beta),),
                "delta.alpha.weight": (Name("ssm_ba.weight", _alpha),),
            },
            extra_layers=MTP,
        ),
        {"norm_topk_prob": True},
        ignored=GGUF_IGNORED,
        per_layer=GGUF_PER_LAYER,
        finish=_finish,
        unheeded=("expert_weights_norm",),
        says=says_delta,
    ),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "moe_intermediate_size": 512,
        "num_experts_per_tok": 10,
        "num_experts": 512,
    },
    mtp=MODULE,
)
