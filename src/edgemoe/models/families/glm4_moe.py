"""GLM-4.5, 4.6 and 4.7: half of each head rotates; experts are chosen as in DeepSeek-V3."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import EXTRA_LAYER, Family
from edgemoe.models.families.fields import (
    read_attention,
    read_grouped_router,
    read_is_dense,
    read_mlp,
    read_model,
    read_moe,
)
from edgemoe.models.families.gguf_names import GROUPED_KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import MLP, MTP, SHARED, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec


def read_glm4(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``glm4_moe`` configuration; o_proj never has a bias."""
    attention = read_attention(
        reader,
        "head" if reader.flag("use_qk_norm", False) else "none",
        has_qkv_bias=reader.flag("attention_bias", False),
    )
    moe = read_moe(reader, read_grouped_router(reader), reader.size("n_shared_experts", 1, at_least=0))
    dense = read_mlp(reader)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 1, at_least=0))
    layers = tuple(LayerSpec(attention, dense if is_mlp else moe) for is_mlp in is_dense)
    return read_model(reader, layers, default_eps=1e-5, default_theta=10000.0, default_share=1.0)


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """The last layers of a file may be those that predict further tokens, and some are of models that see."""
    own.pop("rope.dimension_sections", None)  # a text has the same places along every axis
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))
    config["partial_rotary_factor"] = own["rope.dimension_count"] / config["head_dim"]
    config["attention_bias"] = "blk.0.attn_q.bias" in names
    config["use_qk_norm"] = "blk.0.attn_q_norm.weight" in names


FAMILY = Family(
    "GLM-4.5, GLM-4.6, GLM-4.7",
    ("glm4_moe",),
    read_glm4,
    hugging_face(
        {
            **MLP,
            **SHARED,
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": ("mlp.gate.e_score_correction_bias",),
        },
        extra_layers=MTP,
    ),
    GgufFamily(
        "glm4moe",
        GROUPED_KEYS,
        gguf_table({"ffn_norm.weight": ("post_attention_norm.weight",)}, extra_layers=MTP),
        {"first_k_dense_replace": 0, "norm_topk_prob": False},
        checked={"expert_gating_func": (0, 2)},
        ignored=("rope.dimension_count", "nextn_predict_layers"),
        finish=_finish,
    ),
    defaults={
        "vocab_size": 151552,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_routed_experts": 128,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.5,
    },
    unused=("num_nextn_predict_layers", "num_mtp_layers"),
    mtp=EXTRA_LAYER,
)
