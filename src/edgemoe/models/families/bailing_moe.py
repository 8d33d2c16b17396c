"""Ling and Ring of inclusionAI: queries, keys and values in one matrix, shared experts beside those chosen.

Version 1 (Ling-lite, Ling-plus) chooses by the softmax; version 2 (Ling 2.0, Ring 2.0) norms queries and
keys, rotates half of a head and chooses as DeepSeek-V3 does. Both are published as ``bailing_moe``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_attention, read_is_dense, read_mlp, read_model, read_moe
from edgemoe.models.families.gguf_names import GROUPED_KEYS, SIGMOID, GgufFamily, gguf_table
from edgemoe.models.families.names import MLP, MTP, SHARED, TOP, Name, hugging_face, part_of_qkv
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec


def read_bailing(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``bailing_moe`` configuration of either version."""
    is_second = _is_second(reader)
    refuse_variants(reader)
    attention = read_attention(
        reader,
        "head" if reader.flag("use_qk_norm", is_second) else "none",
        has_qkv_bias=reader.flag("use_qkv_bias", False),
    )
    router = _read_grouped(reader) if is_second else _read_plain(reader)
    moe = read_moe(reader, router, reader.size("num_shared_experts", 0, at_least=0))
    dense = read_mlp(reader)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 0, at_least=0))
    layers = tuple(LayerSpec(attention, dense if is_mlp else moe) for is_mlp in is_dense)
    share = 0.5 if is_second else 1.0
    return read_model(reader, layers, default_eps=1e-6, default_theta=600000.0, default_share=share)


def _is_second(reader: ConfigReader) -> bool:
    names = reader.names("architectures")
    scores = reader.optional("score_function", None)
    is_named = reader.require("model_type") == "bailing_moe_v2" or any("MoeV2" in name for name in names)
    if is_named and scores not in (None, "sigmoid"):
        raise UnsupportedModelError(
            f"config.json: score_function = {scores!r:.60} is not supported: version 2 scores by the sigmoid"
        )
    return is_named or scores == "sigmoid"


def refuse_variants(reader: ConfigReader) -> None:
    """Refuse what no published model of inclusionAI's has."""
    reader.refuse("use_bias", (False,), "networks have no biases here")
    reader.refuse("use_rmsnorm", (True,), "norms are of the root mean square")
    reader.refuse("norm_head", (False,), "the head is used as it is stored")
    reader.refuse("norm_softmax", (False,), "scores are not normed once more")
    reader.refuse("multi_gate", (False,), "tokens of all kinds are routed alike")
    reader.refuse("score_function", ("sigmoid", "softmax"), "experts are scored by one of these")
    width = reader.optional("moe_intermediate_size", None)
    reader.refuse("moe_shared_expert_intermediate_size", (width,), "shared experts are as wide as the others")


def _read_plain(reader: ConfigReader) -> RouterSpec:
    reader.refuse("n_group", (0, 1), "version 1 has no groups of experts")
    reader.refuse("topk_group", (0, 1), "version 1 has no groups of experts")
    return RouterSpec(
        reader.require_size("num_experts"),
        reader.require_size("num_experts_per_tok"),
        "softmax",
        reader.flag("norm_topk_prob", True),
    )


def _read_grouped(reader: ConfigReader) -> RouterSpec:
    reader.refuse("norm_topk_prob", (True,), "weights of chosen experts always sum to the factor")
    return RouterSpec(
        reader.require_size("num_experts"),
        reader.require_size("num_experts_per_tok"),
        "sigmoid",
        renormalize=True,
        has_choice_bias=True,
        num_groups=reader.size("n_group", 1),
        kept_groups=reader.size("topk_group", 1),
        sum_eps=1e-20,
        scale=reader.number("routed_scaling_factor", 1.0),
    )


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """The last layers of a file may be those that predict further tokens."""
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    rotated = own.get("rope.dimension_count", config["head_dim"] // 2)
    config["partial_rotary_factor"] = rotated / config["head_dim"]
    config["use_qk_norm"] = "blk.0.attn_q_norm.weight" in names


_KINDS = ("weight", "bias")
FAMILY = Family(
    "Ling, Ring (versions 1 and 2)",
    ("bailing_moe", "bailing_moe_v2"),
    read_bailing,
    hugging_face(
        {
            **MLP,
            **SHARED,
            **{
                f"attention.{p}.{kind}": (Name(f"attention.query_key_value.{kind}", part_of_qkv(p)),)
                for p in "qkv"
                for kind in _KINDS
            },
            "attention.o.weight": ("attention.dense.weight",),
            "attention.q_norm.weight": ("attention.query_layernorm.weight",),
            "attention.k_norm.weight": ("attention.key_layernorm.weight",),
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": ("mlp.gate.expert_bias",),
        },
        extra_layers=MTP,
    ).with_top({**TOP, "embed.weight": ("word_embeddings.weight",)}),
    GgufFamily(
        "bailingmoe2",
        {
            **GROUPED_KEYS,
            "expert_count": "num_experts",
            "expert_shared_count": "num_shared_experts",
        },
        gguf_table(extra_layers=MTP),
        {"norm_topk_prob": True, "first_k_dense_replace": 0, "score_function": "sigmoid"},
        checked=SIGMOID,
        ignored=("rope.dimension_count", "nextn_predict_layers", "expert_shared_feed_forward_length"),
        finish=_finish,
    ),
    unused=(
        *("router_dtype", "output_dropout", "mtp_loss_scaling_factor", "num_nextn_predict_layers"),
        *("moe_router_enable_expert_bias", "moe_router_enable_shared_expert"),
    ),
)
