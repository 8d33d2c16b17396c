"""Phi-3.5-MoE: LayerNorm with biases, and a "sparse mixer" that chooses two experts.

Texts are as long as the model was first trained for: beyond that its rotation depends on how a text is cut.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_model
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import BLOCK_SPARSE_EXPERTS, hugging_face
from edgemoe.models.spec import ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec


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
    return read_model(
        reader,
        (LayerSpec(attention, moe),) * reader.require_size("num_hidden_layers"),
        default_eps=1e-5,
        default_theta=1000000.0,
        has_layer_norms=True,
        has_head_bias=reader.flag("lm_head_bias", False),
    )


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    config["attention_bias"] = "blk.0.attn_q.bias" in names
    config["lm_head_bias"] = "output.bias" in names


FAMILY = Family(
    "Phi-3.5-MoE",
    ("phimoe",),
    read_phimoe,
    hugging_face(
        {
            "attention_norm.bias": ("input_layernorm.bias",),
            "ffn_norm.bias": ("post_attention_layernorm.bias",),
            "router.weight": ("block_sparse_moe.gate.weight", "mlp.router.weight"),
        },
        experts=BLOCK_SPARSE_EXPERTS,
    ).with_top({"norm.bias": ("norm.bias",), "head.bias": ("/lm_head.bias",)}),
    # llama.cpp runs these files with another router, the softmax over all experts, and without the window.
    GgufFamily(
        "phimoe",
        {
            **{key: name for key, name in KEYS.items() if key != "expert_count"},
            "expert_count": "num_local_experts",
            "feed_forward_length": "intermediate_size",
            "attention.key_length": "head_dim",
            "attention.sliding_window": "sliding_window",
        },
        gguf_table(
            {"attention_norm.bias": ("attn_norm.bias",), "ffn_norm.bias": ("ffn_norm.bias",)}
        ).with_top({"norm.bias": ("output_norm.bias",), "head.bias": ("output.bias",)}),
        finish=_finish,
    ),
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
