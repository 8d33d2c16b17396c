"""DeepSeek-V3, R1 and Kimi-K2: latent attention; sigmoid routing among groups, with a bias for the choice."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.deepseek_v2 import LATENT_LAYERS, is_sigmoid, latent_gguf_keys
from edgemoe.models.families.family import EXTRA_LAYER, Family
from edgemoe.models.families.fields import (
    read_grouped_router,
    read_is_dense,
    read_mlp,
    read_model,
    read_moe,
)
from edgemoe.models.families.gguf_names import GgufFamily, gguf_table
from edgemoe.models.families.latent_fields import LATENT_GGUF_KEYS, finish_latent, read_latent
from edgemoe.models.families.latent_names import GGUF_LATENT
from edgemoe.models.families.names import MTP, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec


def read_deepseek_v3(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``deepseek_v3`` configuration."""
    reader.refuse("moe_layer_freq", (1,), "experts are in every layer after the first dense ones")
    moe = read_moe(reader, read_grouped_router(reader), reader.size("n_shared_experts", 1, at_least=0))
    dense = read_mlp(reader)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 3, at_least=0))
    mixer = read_latent(reader)
    layers = tuple(LayerSpec(mixer, dense if is_mlp else moe) for is_mlp in is_dense)
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0)


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """The last layers of a file may be those that predict further tokens."""
    finish_latent(own, config)
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))


FAMILY = Family(
    "DeepSeek-V3, R1, Kimi-K2",
    ("deepseek_v3", "kimi_k2"),
    read_deepseek_v3,
    hugging_face(LATENT_LAYERS, extra_layers=MTP),
    # Files of GLM-4.7-Flash are of this architecture too, and read as this family are the same model.
    GgufFamily(
        "deepseek2",
        latent_gguf_keys(),
        gguf_table(GGUF_LATENT, extra_layers=MTP),
        {"n_group": 1, "topk_group": 1, "norm_topk_prob": False},
        checked={"expert_gating_func": (0, 2)},
        ignored=(*LATENT_GGUF_KEYS, "nextn_predict_layers", "expert_shared_feed_forward_length"),
        finish=_finish,
        is_ours=is_sigmoid,
    ),
    defaults={
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "max_position_embeddings": 4096,
    },
    unused=("head_dim", "num_nextn_predict_layers", "num_mtp_layers"),
    mtp=EXTRA_LAYER,
)
