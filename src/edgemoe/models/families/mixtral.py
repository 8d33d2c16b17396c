"""Mixtral: the softmax that weighs experts is taken over the chosen ones alone."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_model
from edgemoe.models.families.gguf_names import ATTENTION, KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import BLOCK_SPARSE_EXPERTS, hugging_face, pairs_side_by_side
from edgemoe.models.spec import AttentionSpec, ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec


def read_mixtral(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``mixtral`` configuration; its experts are ``intermediate_size`` wide."""
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    attention = AttentionSpec(
        num_heads,
        reader.size("num_key_value_heads", num_heads),
        reader.size("head_dim", width // num_heads),
        window=reader.size("sliding_window", 0, at_least=0),
    )
    reader.refuse(
        "norm_topk_prob", (True,), "the weights of the chosen experts always sum to 1 in this family"
    )
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_local_experts", "num_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax_of_picked",
        ),
        ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)),
    )
    layers = (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers")
    return read_model(reader, layers, default_eps=1e-5, default_theta=1000000.0)


FAMILY = Family(
    "Mixtral",
    ("mixtral",),
    read_mixtral,
    hugging_face(
        {"router.weight": ("block_sparse_moe.gate.weight", "mlp.gate.weight")}, experts=BLOCK_SPARSE_EXPERTS
    ),
    GgufFamily(
        "llama",
        {
            **KEYS,
            "feed_forward_length": "intermediate_size",
            "attention.key_length": "head_dim",
            "attention.sliding_window": "sliding_window",
        },
        # llama.cpp's converter reorders the rows of queries and keys for its way of rotating.
        gguf_table(pairs_side_by_side(ATTENTION)),
        is_ours=lambda own: bool(own.get("expert_count")),
        checked={"expert_weights_norm": (True,)},
        unheeded=("attention.sliding_window",),
    ),
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
    },
)
