"""Phi-3.5-MoE: norms of mean and variance with biases, and a sparse mixer that chooses two experts.

Texts are as long as the model was first trained for: beyond that its rotation depends on how a text is cut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, check_number, check_size, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_model
from edgemoe.models.families.names import hugging_face
from edgemoe.models.spec import AttentionSpec, ExpertSpec, LayerSpec, ModelSpec, MoESpec, RopeSpec, RouterSpec


def read_phimoe(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``phimoe`` configuration; its experts are ``intermediate_size`` wide."""
    reader.refuse("num_experts_per_tok", (2,), "the sparse mixer chooses two")
    has_bias = reader.flag("attention_bias", False)
    attention = read_attention(
        reader,
        has_qkv_bias=has_bias,
        has_o_bias=has_bias,
        window=reader.size("sliding_window", 0, at_least=0),
    )
    router = RouterSpec(
        reader.require_size("num_local_experts"),
        2,
        "sparse_mixer",
        jitter=reader.number("router_jitter_noise", 0.01),
    )
    moe = MoESpec(router, ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)))
    attention, context = _rotated(reader, attention)
    if context is not None and attention.window >= context:
        attention = replace(attention, window=0)  # longer than any text
    spec = read_model(
        reader,
        (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers"),
        default_eps=1e-5,
        default_theta=1000000.0,
        has_layer_norms=True,
        has_head_bias=reader.flag("lm_head_bias", False),
    )
    return spec if context is None else replace(spec, max_context=context)


def _rotated(reader: ConfigReader, attention: AttentionSpec) -> tuple[AttentionSpec, int | None]:
    """The attention with its rotation, and the longest text; nothing new where it is the usual one."""
    parameters = {**reader.table("rope_scaling"), **reader.table("rope_parameters")}
    if (parameters.get("rope_type") or parameters.get("type")) not in ("longrope", "su"):
        return attention, None
    original = reader.optional("original_max_position_embeddings", None)
    context = check_size(
        "original_max_position_embeddings", original or parameters.get("original_max_position_embeddings")
    )
    theta = parameters.get("rope_theta", reader.number("rope_theta", 1000000.0))
    rope = RopeSpec(
        "divided",
        check_number("rope_theta", theta),
        attention.head_dim,
        context,
        {"attention_factor": check_number("short_mscale", parameters.get("short_mscale"))},
        _divisors(parameters, attention.head_dim),
    )
    reader.optional("max_position_embeddings", None)
    return replace(attention, rope=rope), context


def _divisors(parameters: dict[str, Any], head_dim: int) -> tuple[float, ...]:
    values = parameters.get("short_factor")
    if not isinstance(values, list) or len(values) != head_dim // 2:
        raise UnsupportedModelError(
            f"config.json: short_factor {shown(values)} is not a list of {head_dim // 2} numbers"
        )
    return tuple(check_number("short_factor", value) for value in values)


FAMILY = Family(
    "Phi-3.5-MoE",
    ("phimoe",),
    read_phimoe,
    hugging_face(
        {
            "attention_norm.bias": ("input_layernorm.bias",),
            "ffn_norm.bias": ("post_attention_layernorm.bias",),
            "router.weight": ("block_sparse_moe.gate.weight", "mlp.router.weight"),
        }
    ).with_top({"norm.bias": ("norm.bias",), "head.bias": ("/lm_head.bias",)}),
    defaults={
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 6400,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "num_experts_per_tok": 2,
        "num_local_experts": 16,
    },
    unused=("input_jitter_noise",),
)
