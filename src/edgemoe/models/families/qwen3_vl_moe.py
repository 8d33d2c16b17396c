"""Qwen3-VL-MoE, its text part: Qwen3-MoE where the weights of the chosen experts always sum to 1."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_model, read_qwen_layers
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import (
    MLP,
    VISION,
    Name,
    Names,
    Steps,
    first_half,
    hugging_face,
    second_half,
)
from edgemoe.models.spec import ModelSpec
from edgemoe.source_ref import Rows, Transposed


def read_qwen3_vl(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``qwen3_vl_moe_text`` configuration. Positions of text are the same on all three axes."""
    has_bias = reader.flag("attention_bias", False)
    windows = [0] * reader.require_size("num_hidden_layers")
    layers = read_qwen_layers(reader, windows, "head", (has_bias, has_bias), None, renormalizes=True)
    return read_model(reader, layers, default_eps=1e-6, default_theta=500000.0)


def _gate(spec: ModelSpec, layer: int) -> Steps:
    return (Transposed(), Rows(0, spec.moe(layer).expert.width))


def _up(spec: ModelSpec, layer: int) -> Steps:
    width = spec.moe(layer).expert.width
    return (Transposed(), Rows(width, 2 * width))


def _down(spec: ModelSpec, layer: int) -> Steps:
    return (Transposed(),)


# The published stacks lie with inputs as rows; where both forms have one shape, transformers takes rows of
# outputs.
_EXPERTS: dict[str, Names] = {
    "gate": (
        Name("mlp.experts.gate_up_proj", first_half),
        Name("mlp.experts.gate_up_proj", _gate),
        "mlp.experts.{e}.gate_proj.weight",
    ),
    "up": (
        Name("mlp.experts.gate_up_proj", second_half),
        Name("mlp.experts.gate_up_proj", _up),
        "mlp.experts.{e}.up_proj.weight",
    ),
    "down": (
        "mlp.experts.down_proj",
        Name("mlp.experts.down_proj", _down),
        "mlp.experts.{e}.down_proj.weight",
    ),
}

FAMILY = Family(
    "Qwen3-VL-MoE (text)",
    ("qwen3_vl_moe_text",),
    read_qwen3_vl,
    hugging_face(
        {**MLP, "router.weight": ("mlp.gate.weight",)},
        prefixes=("model.language_model.", "model.", "language_model.model."),
        experts=_EXPERTS,
        ignored={r"(model\.)?visual\..+": VISION},
    ),
    GgufFamily(
        "qwen3vlmoe",
        {
            **KEYS,
            "attention.key_length": "head_dim",
            "feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        gguf_table(),
        # Of images.
        ignored=("rope.dimension_sections", "n_deepstack_layers", "expert_weights_norm"),
        per_layer=("rope.dimension_sections",),
    ),
    holders=("qwen3_vl_moe",),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 128000,
        "tie_word_embeddings": True,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 4,
        "num_experts": 60,
    },
    unused=("norm_topk_prob", "sliding_window", "use_sliding_window", "max_window_layers"),
)
