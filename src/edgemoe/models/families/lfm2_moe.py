"""LFM2 and LFM2.5: short convolutions, some attention layers, experts chosen by sigmoids with a bias."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_attention, read_kinds, read_mlp, read_model, read_moe
from edgemoe.models.families.gguf_names import KEYS, SIGMOID, GgufFamily, gguf_table, key_heads
from edgemoe.models.families.names import Name, Names, first_half, hugging_face, parts_filled, second_half
from edgemoe.models.mixer_spec import filled
from edgemoe.models.mixers.short_conv import ShortConvSpec
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec

_CONV, _FULL = "conv", "full_attention"


def read_lfm2(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``lfm2_moe`` configuration."""
    reader.refuse("hidden_act", ("silu", "swish"), "the family has no other")
    router = RouterSpec(
        reader.require_size("num_experts"),
        reader.require_size("num_experts_per_tok"),
        "sigmoid",
        reader.flag("norm_topk_prob", True),
        has_choice_bias=reader.flag("use_expert_bias", True),
        sum_eps=1e-6,
        scale=reader.number("routed_scaling_factor", 1.0),
    )
    moe, dense = read_moe(reader, router), read_mlp(reader)
    num_dense = reader.size("num_dense_layers", 2, at_least=0)
    attention = read_attention(reader, "head")
    conv = ShortConvSpec(
        filled(reader.require_size("hidden_size")),
        reader.size("conv_L_cache", 3),
        reader.flag("conv_bias", False),
    )
    layers = tuple(
        LayerSpec(conv if kind == _CONV else attention, dense if index < num_dense else moe)
        for index, kind in enumerate(_kinds(reader))
    )
    spec = read_model(reader, layers, default_eps=1e-6, default_theta=1_000_000.0)
    is_tied = reader.flag("tie_word_embeddings", True, "tie_embedding")
    if reader.has("tie_embedding"):  # which counts where both are given
        is_tied = reader.flag("tie_embedding", True)
    return replace(spec, norm_eps=reader.number("norm_eps", 1e-5), has_tied_head=is_tied)


def _kinds(reader: ConfigReader) -> list[str]:
    return read_kinds(reader, (_CONV, _FULL))


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Layers without heads of keys are convolutions."""
    heads = config["num_key_value_heads"]
    if not isinstance(heads, list):
        raise UnsupportedModelError("GGUF key attention.head_count_kv does not say which layers convolve")
    config["layer_types"] = [_FULL if count else _CONV for count in heads]
    config["num_key_value_heads"] = max(heads)


def _says(spec: ModelSpec) -> dict[str, Any]:
    """Which layers convolve, and over how many tokens."""
    taps = [layer.mixer.num_taps for layer in spec.layers if isinstance(layer.mixer, ShortConvSpec)]
    return {"attention.head_count_kv": key_heads(spec), "shortconv.l_cache": max(taps, default=None)}


_PARTS = {"gate": "w1", "up": "w3", "down": "w2"}
_EXPERTS: dict[str, Names] = {
    "gate": (
        "feed_forward.experts.{e}.w1.weight",
        Name("feed_forward.experts.gate_up_proj", first_half),
    ),
    "up": ("feed_forward.experts.{e}.w3.weight", Name("feed_forward.experts.gate_up_proj", second_half)),
    "down": ("feed_forward.experts.{e}.w2.weight", "feed_forward.experts.down_proj"),
}
_CONVOLUTION: dict[str, Names] = {
    **{f"conv.in.{kind}": (Name(f"conv.in_proj.{kind}", parts_filled(3)),) for kind in ("weight", "bias")},
    **{
        f"conv.{ours}.{kind}": (f"conv.{theirs}.{kind}",)
        for ours, theirs in (("conv", "conv"), ("out", "out_proj"))
        for kind in ("weight", "bias")
    },
}

FAMILY = Family(
    "LFM2, LFM2.5",
    ("lfm2_moe",),
    read_lfm2,
    hugging_face(
        {
            **_CONVOLUTION,
            "attention_norm.weight": ("operator_norm.weight",),
            "ffn_norm.weight": ("ffn_norm.weight",),
            "attention.o.weight": ("self_attn.out_proj.weight",),
            **{f"attention.{p}_norm.weight": (f"self_attn.{p}_layernorm.weight",) for p in "qk"},
            "router.weight": ("feed_forward.gate.weight",),
            "router.choice_bias": ("feed_forward.expert_bias",),
            **{f"mlp.{p}.weight": (f"feed_forward.{w}.weight",) for p, w in _PARTS.items()},
        },
        experts=_EXPERTS,
    ).with_top({"norm.weight": ("embedding_norm.weight",)}),
    GgufFamily(
        "lfm2moe",
        {
            **{k: v for k, v in KEYS.items() if k != "attention.layer_norm_rms_epsilon"},
            "attention.layer_norm_rms_epsilon": "norm_eps",
            "feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "moe_intermediate_size",
            "leading_dense_block_count": "num_dense_layers",
            "shortconv.l_cache": "conv_L_cache",
        },
        gguf_table(
            {
                "conv.in.weight": (Name("shortconv.in_proj.weight", parts_filled(3)),),
                "conv.conv.weight": ("shortconv.conv.weight",),
                "conv.out.weight": ("shortconv.out_proj.weight",),
            }
        ).with_top({"norm.weight": ("token_embd_norm.weight",)}),
        checked=SIGMOID,
        ignored=("attention.key_length", "attention.value_length"),
        per_layer=("attention.head_count_kv", "feed_forward_length"),
        finish=_finish,
        says=_says,
    ),
    defaults={
        "vocab_size": 65536,
        "hidden_size": 2048,
        "intermediate_size": 7168,
        "moe_intermediate_size": 1792,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128000,
        "num_experts_per_tok": 4,
        "num_experts": 32,
    },
)
