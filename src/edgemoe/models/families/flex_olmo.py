"""FlexOlmo: OLMoE's attention and experts, with norms after each part of a layer instead of before it."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_model
from edgemoe.models.families.names import hugging_face
from edgemoe.models.spec import ExpertSpec, LayerSpec, ModelSpec, MoESpec, ResidualSpec, RouterSpec


def read_flex_olmo(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``flex_olmo`` configuration; its experts are ``intermediate_size`` wide."""
    has_bias = reader.flag("attention_bias", False)
    attention = read_attention(reader, "projection", has_qkv_bias=has_bias, has_o_bias=has_bias)
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts", "num_local_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax",
            reader.flag("norm_topk_prob", False),
        ),
        ExpertSpec(reader.require_size("intermediate_size"), read_activation(reader)),
    )
    residual = ResidualSpec(has_pre_norms=False, has_post_norms=True)
    layers = (LayerSpec(attention, moe, residual=residual),) * reader.require_size("num_hidden_layers")
    return read_model(reader, layers, default_eps=1e-6, default_theta=500000.0)


FAMILY = Family(
    "FlexOlmo",
    ("flex_olmo",),
    read_flex_olmo,
    hugging_face(
        {
            "mixer_post_norm.weight": ("post_attention_layernorm.weight",),
            "ffn_post_norm.weight": ("post_feedforward_layernorm.weight",),
            "router.weight": ("mlp.gate.weight",),
        }
    ),
    defaults={
        "vocab_size": 100352,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
        "num_experts": 7,
        "num_experts_per_tok": 5,
    },
)
