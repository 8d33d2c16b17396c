"""Hy3: Qwen3's attention, sigmoid routing with a choice bias and a factor, a shared expert."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_attention, read_is_dense, read_mlp, read_model, read_moe
from edgemoe.models.families.gguf_names import GROUPED_KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import MLP, MTP, PROJECTIONS, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec


def read_hy(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``hy_v3`` configuration."""
    has_bias = reader.flag("attention_bias", False)
    router = RouterSpec(
        reader.require_size("num_experts", "num_local_experts"),
        reader.require_size("num_experts_per_tok"),
        "sigmoid",
        renormalize=True,
        has_choice_bias=True,
        sum_eps=1e-20,
        scale=reader.number("router_scaling_factor", 2.826),
    )
    has_mlp_bias = reader.flag("mlp_bias", False)  # of all networks but the chosen experts
    num_shared = reader.size("num_shared_experts", 1, at_least=0)
    moe = read_moe(reader, router, num_shared, has_shared_bias=has_mlp_bias)
    dense = read_mlp(reader, has_bias=has_mlp_bias)
    attention = read_attention(reader, "head", has_qkv_bias=has_bias, has_o_bias=has_bias)
    first = reader.size("first_k_dense_replace", 1, at_least=0)
    layers = tuple(LayerSpec(attention, dense if mlp else moe) for mlp in read_is_dense(reader, first))
    return read_model(reader, layers, default_eps=1e-5, default_theta=11158840.0)


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """The last layers of a file may be those that predict further tokens."""
    if "expert_weights_norm" not in own:  # llama.cpp then leaves the weights of the chosen as they are
        raise KeyError("expert_weights_norm")
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))


FAMILY = Family(
    "Hy3",
    ("hy_v3",),
    read_hy,
    hugging_face(
        {
            **MLP,
            **{
                f"shared.{p}.{kind}": (
                    f"mlp.shared_mlp.{p}_proj.{kind}",
                    f"mlp.shared_experts.{p}_proj.{kind}",
                )
                for p in PROJECTIONS
                for kind in ("weight", "bias")
            },
            "router.weight": ("mlp.router.gate.weight", "mlp.gate.weight"),
            "router.choice_bias": ("mlp.expert_bias", "mlp.e_score_correction_bias"),
        },
        extra_layers=MTP,
        ignored={r"model\.mtp.+": MTP},
    ),
    GgufFamily(
        "hy_v3",
        {
            **{key: name for key, name in GROUPED_KEYS.items() if key != "expert_weights_norm"},
            "expert_count": "num_experts",
            "expert_shared_count": "num_shared_experts",
            "expert_weights_scale": "router_scaling_factor",
        },
        gguf_table({"router.choice_bias": ("exp_probs_b", "exp_probs_b.bias")}, extra_layers=MTP),
        checked={"expert_gating_func": (0, 2), "expert_weights_norm": (True,)},
        ignored=("nextn_predict_layers", "expert_shared_feed_forward_length"),
        finish=_finish,
    ),
    defaults={
        "vocab_size": 120832,
        "hidden_size": 4096,
        "intermediate_size": 13312,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "num_experts": 192,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1536,
    },
    # Sums of experts are of single precision here in any case.
    unused=("enable_moe_fp32_combine", "num_nextn_predict_layers", "enable_lm_head_fp32"),
)
