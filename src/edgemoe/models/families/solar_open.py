"""Solar Open: a Llama with GLM-4.5's experts in every layer. Its GGUF files are read as GLM-4.5's."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_attention, read_grouped_router, read_model, read_moe
from edgemoe.models.families.names import MTP, SHARED, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec


def read_solar(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``solar_open`` configuration; o_proj never has a bias."""
    attention = read_attention(reader, has_qkv_bias=reader.flag("attention_bias", False))
    moe = read_moe(reader, read_grouped_router(reader), reader.size("n_shared_experts", 1, at_least=0))
    reader.refuse("first_k_dense_replace", (0,), "all layers of the family have experts")
    reader.refuse("use_qk_norm", (False,), "queries and keys are not normed in this family")
    layers = (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers")
    return read_model(reader, layers, default_eps=1e-5, default_theta=1000000.0, default_share=1.0)


FAMILY = Family(
    "Solar Open",
    ("solar_open",),
    read_solar,
    hugging_face(
        {
            **SHARED,
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": ("mlp.gate.e_score_correction_bias",),
        },
        extra_layers=MTP,
    ),
    gguf_of="glm4_moe",
    defaults={
        "vocab_size": 196608,
        "hidden_size": 4096,
        "num_hidden_layers": 48,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "moe_intermediate_size": 1280,
        "num_experts_per_tok": 8,
        "n_routed_experts": 128,
        "norm_topk_prob": True,
    },
    unused=("intermediate_size", "num_nextn_predict_layers"),
)
