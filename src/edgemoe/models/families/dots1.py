"""dots.llm1: Qwen3's attention, and experts that are chosen as in DeepSeek-V3."""

from __future__ import annotations

from dataclasses import replace

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import (
    read_attention,
    read_grouped_router,
    read_is_dense,
    read_mlp,
    read_model,
    read_moe,
)
from edgemoe.models.families.gguf_names import GROUPED_KEYS, SIGMOID, GgufFamily, gguf_table
from edgemoe.models.families.names import MLP, SHARED, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec

_KINDS = ("full_attention", "sliding_attention")


def read_dots1(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``dots1`` configuration."""
    has_bias = reader.flag("attention_bias", False)
    attention = read_attention(reader, "head", has_qkv_bias=has_bias, has_o_bias=has_bias)
    moe = read_moe(reader, read_grouped_router(reader), reader.size("n_shared_experts", 0, at_least=0))
    dense = read_mlp(reader)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 0, at_least=0))
    layers = tuple(
        LayerSpec(replace(attention, window=window), dense if is_mlp else moe)
        for window, is_mlp in zip(_windows(reader, len(is_dense)), is_dense, strict=True)
    )
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0)


def _windows(reader: ConfigReader, num_layers: int) -> list[int]:
    """Window per layer: by ``layer_types``, else in those from ``max_window_layers`` on."""
    # Null says that no layer has one, a missing key the family's own.
    window = reader.size("sliding_window", 0 if reader.has("sliding_window") else 4096, at_least=0)
    first = reader.size("max_window_layers", 62, at_least=0)
    default = [_KINDS[window > 0 and index >= first] for index in range(num_layers)]
    kinds = reader.names("layer_types", default)
    if len(kinds) != num_layers or not {*kinds} <= {*_KINDS}:
        raise UnsupportedModelError(f"config.json: layer_types {shown(kinds)} is not run")
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


FAMILY = Family(
    "dots.llm1",
    ("dots1",),
    read_dots1,
    hugging_face(
        {
            **MLP,
            **SHARED,
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": ("mlp.gate.e_score_correction_bias",),
        }
    ),
    GgufFamily(
        "dots1",
        GROUPED_KEYS,
        gguf_table(),
        # No file says that there are windows, and no model has them.
        {"sliding_window": None, "norm_topk_prob": False},
        checked=SIGMOID,
    ),
    defaults={
        "vocab_size": 152064,
        "hidden_size": 4608,
        "intermediate_size": 10944,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 2048,
        "moe_intermediate_size": 1408,
    },
)
