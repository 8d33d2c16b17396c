"""MiniMax-M2: norms of queries and keys over the whole projection, sigmoid routing with a choice bias."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_model
from edgemoe.models.families.gguf_names import KEYS, SIGMOID, GgufFamily, gguf_table
from edgemoe.models.families.names import BLOCK_SPARSE_EXPERTS, MTP, hugging_face
from edgemoe.models.spec import ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec


def read_minimax(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``minimax_m2`` configuration; its experts are ``intermediate_size`` wide."""
    num_layers = reader.require_size("num_hidden_layers")
    reader.refuse("attn_type_list", ([1] * num_layers,), "all layers of the family have full attention")
    reader.refuse("use_qk_norm", (True,), "queries and keys are normed in this family")
    reader.refuse("qk_norm_type", ("per_layer",), "norms are over the whole projection")
    reader.refuse("use_routing_bias", (True,), "experts are chosen with a bias")
    reader.refuse("scoring_func", ("sigmoid",), "experts are scored by the sigmoid")
    reader.refuse("shared_intermediate_size", (0,), "the family has no shared experts")
    reader.refuse("sliding_window", (0,), "the family has no windows")
    router = RouterSpec(
        reader.require_size("num_local_experts", "num_experts"),
        reader.require_size("num_experts_per_tok"),
        "sigmoid",
        renormalize=True,
        has_choice_bias=True,
    )
    moe = MoESpec(router, ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)))
    attention = read_attention(reader, "projection")
    rotary_dim = reader.size("rotary_dim", attention.head_dim)
    return read_model(
        reader,
        (LayerSpec(attention, moe),) * num_layers,
        default_eps=1e-6,
        default_theta=5000000.0,
        default_share=rotary_dim / attention.head_dim,
    )


FAMILY = Family(
    "MiniMax-M2",
    ("minimax_m2",),
    read_minimax,
    hugging_face(
        {
            "router.weight": ("block_sparse_moe.gate.weight", "mlp.gate.weight"),
            "router.choice_bias": (
                "block_sparse_moe.e_score_correction_bias",
                "mlp.e_score_correction_bias",
                # What transformers writes.
                "mlp.gate.e_score_correction_bias",
            ),
        },
        experts=BLOCK_SPARSE_EXPERTS,
        extra_layers=MTP,
        ignored={r"model\.mtp\..+": MTP},
    ),
    GgufFamily(
        "minimax-m2",
        {
            **KEYS,
            "attention.key_length": "head_dim",
            "expert_feed_forward_length": "intermediate_size",
            "rope.dimension_count": "rotary_dim",
        },
        gguf_table(),
        checked=SIGMOID,
        ignored=("feed_forward_length", "expert_weights_norm"),
    ),
    defaults={
        "vocab_size": 200064,
        "hidden_size": 3072,
        "intermediate_size": 1536,
        "num_hidden_layers": 62,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 196608,
        "num_experts_per_tok": 8,
        "num_local_experts": 256,
    },
    unused=(
        *("num_mtp_modules", "use_mtp", "mtp_transformer_layers", "mlp_intermediate_size"),
        *("layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta"),
        "shared_moe_mode",
    ),
)
