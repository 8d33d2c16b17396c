"""ERNIE 4.5: neighbouring pairs rotate; a bias is added to choose experts, but not to weigh them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_attention, read_mlp, read_model, read_moe
from edgemoe.models.families.gguf_names import ATTENTION as GGUF_ATTENTION
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import (
    ATTENTION,
    MLP,
    MTP,
    SHARED,
    hugging_face,
    pairs_side_by_side,
)
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec


def read_ernie(reader: ConfigReader) -> ModelSpec:
    """Spec of an ``ernie4_5_moe`` configuration."""
    has_bias = reader.flag("use_bias", False)  # of all matrices but the chosen experts'
    router = RouterSpec(
        reader.require_size("moe_num_experts", "num_experts"),
        reader.require_size("moe_k", "num_experts_per_tok"),
        "softmax",
        renormalize=True,
        has_choice_bias=True,
        sum_eps=reader.number("moe_norm_min", 1e-12),
        is_eps_minimum=True,
    )
    num_shared = reader.size("moe_num_shared_experts", 2, at_least=0)
    moe = read_moe(reader, router, num_shared, has_shared_bias=has_bias)
    dense = read_mlp(reader, has_bias=has_bias)
    attention = read_attention(reader, has_qkv_bias=has_bias, has_o_bias=has_bias)
    layers = tuple(LayerSpec(attention, moe if is_sparse else dense) for is_sparse in _are_sparse(reader))
    return read_model(reader, layers, default_eps=1e-5, default_theta=500000.0, has_head_bias=has_bias)


def _are_sparse(reader: ConfigReader) -> list[bool]:
    num_layers = reader.require_size("num_hidden_layers")
    first = reader.size("moe_layer_start_index", 1, at_least=0)
    last = reader.size("moe_layer_end_index", num_layers - 1, at_least=-1)
    last = num_layers - 1 if last == -1 else last
    step = reader.size("moe_layer_interval", 1)
    return [first <= index <= last and (index + 1) % step == 0 for index in range(num_layers)]


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Widths of shared experts are written by a formula that fits one model; their number is right."""
    config["moe_num_shared_experts"] = int(own.get("expert_shared_count", 0))


FAMILY = Family(
    "ERNIE 4.5",
    ("ernie4_5_moe",),
    read_ernie,
    hugging_face(
        {
            **pairs_side_by_side(ATTENTION),
            **MLP,
            **SHARED,
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": (
                "mlp.moe_statics.e_score_correction_bias",
                "mlp.gate.moe_statics.e_score_correction_bias",
            ),
        },
        extra_layers=MTP,
        ignored={r"model\.mtp_.+": MTP},
    ).with_top({"head.bias": ("/lm_head.bias",)}),
    GgufFamily(
        "ernie4_5-moe",
        {
            **{key: name for key, name in KEYS.items() if not key.startswith("expert")},
            "attention.key_length": "head_dim",
            "expert_count": "moe_num_experts",
            "expert_used_count": "moe_k",
            "feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "moe_intermediate_size",
            "interleave_moe_layer_step": "moe_layer_interval",
            "leading_dense_block_count": "moe_layer_start_index",
        },
        gguf_table(pairs_side_by_side(GGUF_ATTENTION)),
        ignored=("expert_shared_count", "expert_shared_feed_forward_length", "expert_weights_norm"),
        finish=_finish,
    ),
    defaults={
        "vocab_size": 103424,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 28,
        "num_attention_heads": 20,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "moe_intermediate_size": 1536,
        "moe_k": 6,
        "moe_num_experts": 64,
    },
    unused=(
        *("num_nextn_predict_layers", "moe_capacity", "moe_gate", "moe_use_aux_free", "use_rmsnorm"),
        *("multi_token_pred_lambda", "compression_ratio", "moe_aux_loss_lambda", "moe_z_loss_lambda"),
        *("moe_orthogonal_loss_lambda", "moe_group", "enable_mtp_magic_send"),
    ),
)
