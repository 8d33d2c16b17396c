"""Configuration fields that all families spell alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.rope import promised_context, read_rope
from edgemoe.models.spec import (
    AttentionSpec,
    ExpertSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    RouterSpec,
    SharedExpertSpec,
)

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}


def read_activation(reader: ConfigReader, key: str = "hidden_act", default: str = "silu") -> str:
    """The activation in our words."""
    name = reader.optional(key, default)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"config.json: {key} = {shown(name)} is not supported; supported: " + ", ".join(_ACTIVATIONS)
        )
    return _ACTIVATIONS[name]


def read_model(
    reader: ConfigReader,
    layers: tuple[LayerSpec, ...],
    default_eps: float,
    default_theta: float,
    default_rope: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Embedding, norm, rope and head around the layers."""
    attention = layers[0].mixer
    assert isinstance(attention, AttentionSpec)
    rope = read_rope(reader, attention.head_dim, default_theta, default_rope)
    return ModelSpec(
        family=str(reader.require("model_type")),
        width=reader.require_size("hidden_size"),
        vocab_size=reader.require_size("vocab_size"),
        layers=tuple(_rotated(layer, rope) for layer in layers),
        norm_eps=reader.number("rms_norm_eps", default_eps),
        has_tied_head=reader.flag("tie_word_embeddings", False),
        max_context=promised_context(rope),
    )


def _rotated(layer: LayerSpec, rope: RopeSpec) -> LayerSpec:
    """The layer with this rotation, where its mixer is attention without one of its own."""
    if not isinstance(layer.mixer, AttentionSpec) or layer.mixer.rope is not None:
        return layer
    return replace(layer, mixer=replace(layer.mixer, rope=rope))


def read_qwen_layers(
    reader: ConfigReader,
    windows: list[int],
    qk_norm: Literal["none", "head", "projection"],
    biases: tuple[bool, bool],
    shared: SharedExpertSpec | None,
) -> tuple[LayerSpec, ...]:
    """Layers of Qwen's mixtures: experts in every ``decoder_sparse_step``-th, dense networks elsewhere."""
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    head_dim = reader.size("head_dim", width // num_heads)
    activation = read_activation(reader)
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts", "num_local_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax",
            reader.flag("norm_topk_prob", False),
        ),
        ExpertSpec(reader.require_size("moe_intermediate_size"), activation),
        shared,
    )
    dense = MLPSpec(reader.require_size("intermediate_size"), activation)
    step = reader.size("decoder_sparse_step", 1)
    only_dense = set(reader.sizes("mlp_only_layers"))
    return tuple(
        LayerSpec(
            AttentionSpec(
                num_heads,
                reader.size("num_key_value_heads", num_heads),
                head_dim,
                qk_norm,
                *biases,
                window=window,
            ),
            dense if index in only_dense or (index + 1) % step else moe,
        )
        for index, window in enumerate(windows)
    )


def read_window(reader: ConfigReader) -> int:
    """Width of Qwen's window where one is used: null says none, a missing key the family's own."""
    return reader.size("sliding_window", 0 if reader.has("sliding_window") else 4096, at_least=0)
