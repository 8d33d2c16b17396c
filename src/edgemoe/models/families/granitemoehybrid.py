"""Granite 4 hybrids: Mamba-2 layers, some attention layers, and Granite's experts and multipliers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_model
from edgemoe.models.families.gguf_names import ATTENTION as GGUF_ATTENTION
from edgemoe.models.families.gguf_names import GgufFamily, gguf_table
from edgemoe.models.families.granitemoe import (
    GGUF_KEYS,
    GRANITE_EXPERTS,
    GRANITE_LAYERS,
    read_granite_experts,
)
from edgemoe.models.families.mamba_fields import (
    ATTENTION,
    GGUF_MAMBA,
    MAMBA,
    check_mamba,
    mamba_names,
    read_step_limits,
    read_unrotated,
    says_mamba,
)
from edgemoe.models.families.names import hugging_face, pairs_side_by_side
from edgemoe.models.mixers.mamba2 import Mamba2Spec
from edgemoe.models.spec import AttentionSpec, LayerSpec, ModelSpec, ResidualSpec


def read_granite_hybrid(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``granitemoehybrid`` configuration."""
    if reader.optional("num_local_experts", 8) == 0:
        raise UnsupportedModelError("config.json: num_local_experts is 0; EdgeMoE runs sparse models")
    attention, mamba, experts = _read_attention(reader), _read_mamba(reader), read_granite_experts(reader)
    residual = ResidualSpec(reader.number("residual_multiplier", 1.0))
    layers = tuple(
        LayerSpec(mamba if is_mamba else attention, experts, residual=residual)
        for is_mamba in _are_mamba(reader)
    )
    position = reader.optional("position_embedding_type", "nope")
    if position not in ("nope", "rope"):
        raise UnsupportedModelError(
            f"config.json: position_embedding_type = {shown(position)} is not supported; supported: nope,"
            " rope"
        )
    eps, embed_scale = reader.number("rms_norm_eps", 1e-6), reader.number("embedding_multiplier", 1.0)
    head_scale = 1 / reader.number("logits_scaling", 1.0)
    has_attention = any(isinstance(layer.mixer, AttentionSpec) for layer in layers)
    if position == "nope" or not has_attention:
        return read_unrotated(reader, layers, eps, embed_scale, head_scale)
    return read_model(
        reader,
        layers,
        default_eps=1e-6,
        default_theta=10000.0,
        embed_scale=embed_scale,
        head_scale=head_scale,
    )


def _read_attention(reader: ConfigReader) -> AttentionSpec:
    has_bias = reader.flag("attention_bias", False)
    # In place of the usual C^-0.5, not beside it.
    scale = reader.number("attention_multiplier", 1.0)
    return read_attention(reader, has_qkv_bias=has_bias, has_o_bias=has_bias, score_scale=scale)


def _read_mamba(reader: ConfigReader) -> Mamba2Spec:
    num_heads = reader.size("mamba_n_heads", 128)
    inner = reader.size("mamba_expand", 2) * reader.require_size("hidden_size")
    is_derived = reader.optional("mamba_d_head", "auto") == "auto"
    mamba = Mamba2Spec(
        num_heads,
        inner // num_heads if is_derived else reader.require_size("mamba_d_head"),
        reader.size("mamba_n_groups", 1),
        reader.size("mamba_d_state", 256),
        reader.size("mamba_d_conv", 4),
        reader.flag("mamba_conv_bias", True),
        reader.flag("mamba_proj_bias", False),
        read_step_limits(reader),
        read_activation(reader),
    )
    check_mamba(mamba)
    return mamba


def _are_mamba(reader: ConfigReader) -> list[bool]:
    num_layers = reader.require_size("num_hidden_layers")
    kinds = reader.optional("layer_types", ["mamba"] * num_layers, "layers_block_type")
    known = {*MAMBA, *ATTENTION}
    if not isinstance(kinds, list) or len(kinds) != num_layers or not all(kind in known for kind in kinds):
        raise UnsupportedModelError(
            f"config.json: layer_types must say mamba or attention of each of the {num_layers} layers; it is"
            f" {shown(kinds)}"
        )
    return [kind in MAMBA for kind in kinds]


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    heads = config["num_key_value_heads"]
    if not isinstance(heads, list):
        heads = [heads] * config["num_hidden_layers"]
    config["layer_types"] = ["attention" if count else "mamba" for count in heads]
    config["num_key_value_heads"] = max(heads) or config["num_attention_heads"]
    config["mamba_d_head"] = own.pop("ssm.inner_size") // config["mamba_n_heads"]
    # Files say so where queries and keys rotate.
    rotates = own.get("rope.scaling.finetuned", True)
    config["position_embedding_type"] = "rope" if rotates else "nope"
    config["attention_bias"] = any(name.endswith("attn_q.bias") for name in names)
    config["mamba_conv_bias"] = any(name.endswith("ssm_conv1d.bias") for name in names)
    config["mamba_proj_bias"] = any(name.endswith("ssm_in.bias") for name in names)
    width = own.get("expert_feed_forward_length") or own.get("feed_forward_length")
    config["intermediate_size"] = max(width) if isinstance(width, list) else width


def _says(spec: ModelSpec) -> dict[str, Any]:
    """Whether queries and keys rotate; the size of their heads stands in files in any case."""
    heads = [layer.mixer.head_dim for layer in spec.layers if isinstance(layer.mixer, AttentionSpec)]
    return {
        **says_mamba(spec),
        "rope.scaling.finetuned": any(layer.rope is not None for layer in spec.layers),
        "rope.dimension_count": max(heads, default=None),
    }


_NAMES = {**GRANITE_LAYERS, **mamba_names("mamba")}
FAMILY = Family(
    "Granite 4 hybrid MoE",
    ("granitemoehybrid",),
    read_granite_hybrid,
    hugging_face(_NAMES, experts=GRANITE_EXPERTS),
    GgufFamily(
        "granitehybrid",
        {
            **GGUF_KEYS,
            "expert_shared_feed_forward_length": "shared_intermediate_size",
            "ssm.conv_kernel": "mamba_d_conv",
            "ssm.state_size": "mamba_d_state",
            "ssm.group_count": "mamba_n_groups",
            "ssm.time_step_rank": "mamba_n_heads",
        },
        gguf_table({**pairs_side_by_side(GGUF_ATTENTION), **GGUF_MAMBA}),
        implied={"shared_intermediate_size": 0},
        ignored=("feed_forward_length", "expert_feed_forward_length"),
        per_layer=("attention.head_count_kv", "feed_forward_length"),
        finish=_finish,
        says=_says,
    ),
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 1024,
    },
    unused=("mamba_chunk_size", "normalization_function", "init_method"),
)
