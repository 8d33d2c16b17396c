"""GLM-4.7-Flash: latent attention, and experts that are chosen as in DeepSeek-V3.

Its GGUF files are of DeepSeek's architecture and are read as that family.
"""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.deepseek_v2 import LATENT_LAYERS
from edgemoe.models.families.family import EXTRA_LAYER, Family
from edgemoe.models.families.fields import (
    read_grouped_router,
    read_is_dense,
    read_mlp,
    read_model,
    read_moe,
)
from edgemoe.models.families.latent_fields import read_latent
from edgemoe.models.families.names import MTP, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec


def read_glm4_lite(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``glm4_moe_lite`` configuration; the first layer is dense unless it says otherwise."""
    moe = read_moe(reader, read_grouped_router(reader), reader.size("n_shared_experts", 1, at_least=0))
    dense, mixer = read_mlp(reader), read_latent(reader)
    layers = tuple(LayerSpec(mixer, dense if is_mlp else moe) for is_mlp in read_is_dense(reader, 1))
    return read_model(reader, layers, default_eps=1e-5, default_theta=10000.0)


FAMILY = Family(
    "GLM-4.7-Flash",
    ("glm4_moe_lite",),
    read_glm4_lite,
    hugging_face(LATENT_LAYERS, extra_layers=MTP),
    gguf_of="deepseek_v3",
    defaults={
        "vocab_size": 154880,
        "hidden_size": 2048,
        "intermediate_size": 10240,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "n_routed_experts": 64,
        "routed_scaling_factor": 1.8,
        "kv_lora_rank": 512,
        "q_lora_rank": 768,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "qk_nope_head_dim": 192,
        "num_experts_per_tok": 4,
        "norm_topk_prob": True,
        "max_position_embeddings": 202752,
    },
    # The class looks at none of these.
    unused=("head_dim", "num_nextn_predict_layers", "first_k_dense_replace", "moe_layer_freq"),
    mtp=EXTRA_LAYER,
)
