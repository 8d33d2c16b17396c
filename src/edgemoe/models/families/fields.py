"""Configuration fields that all families spell alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.rope import read_rope
from edgemoe.models.spec import (
    ROW_MULTIPLE,
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

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu"}


def read_activation(reader: ConfigReader, key: str = "hidden_act", default: str = "silu") -> str:
    """The activation in our words."""
    name = reader.optional(key, default)
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"config.json: {key} = {name!r} is not supported; supported: " + ", ".join(_ACTIVATIONS)
        )
    return _ACTIVATIONS[name]


def read_model(
    reader: ConfigReader,
    layers: tuple[LayerSpec, ...],
    default_eps: float,
    default_theta: float,
) -> ModelSpec:
    """Embedding, norm, rope and head around the layers; checks that the whole can be run."""
    attention = layers[0].mixer
    assert isinstance(attention, AttentionSpec)
    rope = read_rope(reader, attention.head_dim, default_theta)
    spec = ModelSpec(
        family=str(reader.require("model_type")),
        width=reader.require_size("hidden_size"),
        vocab_size=reader.require_size("vocab_size"),
        layers=tuple(_rotated(layer, rope) for layer in layers),
        norm_eps=float(reader.optional("rms_norm_eps", default_eps)),
        has_tied_head=bool(reader.optional("tie_word_embeddings", False)),
        max_context=reader.require_size("max_position_embeddings"),
    )
    check_spec(spec)
    return spec


def _rotated(layer: LayerSpec, rope: RopeSpec) -> LayerSpec:
    """The layer with this rotation, where its mixer is attention without one of its own."""
    if not isinstance(layer.mixer, AttentionSpec) or layer.mixer.rope is not None:
        return layer
    return replace(layer, mixer=replace(layer.mixer, rope=rope))


def check_spec(spec: ModelSpec) -> None:
    """Refuse what cannot be run.

    Raises:
        UnsupportedModelError: sizes that do not fit each other or the packed formats, or no experts.
    """
    for layer in spec.layers:
        attention = layer.mixer
        if isinstance(attention, AttentionSpec) and attention.num_heads % attention.num_kv_heads:
            raise UnsupportedModelError(
                f"config.json: num_attention_heads = {attention.num_heads} is not a multiple of"
                f" num_key_value_heads = {attention.num_kv_heads}"
            )
    if not spec.decoder_moe_layers:
        raise UnsupportedModelError("config.json: no decoder layer has experts; EdgeMoE runs sparse models")
    widths = [("hidden_size", spec.width)]
    for layer in spec.layers:
        if layer.mixer is not None:
            widths += layer.mixer.row_lengths().items()
        feed_forward = layer.feed_forward
        if isinstance(feed_forward, MoESpec):
            widths.append(("expert width", feed_forward.expert.width))
            if feed_forward.router.top_k > feed_forward.router.num_experts:
                raise UnsupportedModelError("config.json: more experts per token than experts")
            if feed_forward.shared is not None:
                widths.append(("shared expert width", feed_forward.shared.width))
        elif feed_forward is not None:
            widths.append(("intermediate_size", feed_forward.width))
    for name, width in widths:
        if width % ROW_MULTIPLE:
            raise UnsupportedModelError(
                f"config.json: {name} = {width} is not a multiple of {ROW_MULTIPLE},"
                " which the packed formats need"
            )


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
    head_dim = int(reader.optional("head_dim", width // num_heads))
    activation = read_activation(reader)
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts", "num_local_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax_then_pick",
            bool(reader.optional("norm_topk_prob", False)),
        ),
        ExpertSpec(reader.require_size("moe_intermediate_size"), activation),
        shared,
    )
    dense = MLPSpec(reader.require_size("intermediate_size"), activation)
    step = int(reader.optional("decoder_sparse_step", 1))
    only_dense = set(reader.optional("mlp_only_layers", []))
    return tuple(
        LayerSpec(
            AttentionSpec(
                num_heads,
                int(reader.optional("num_key_value_heads", num_heads)),
                head_dim,
                qk_norm,
                *biases,
                window=window,
            ),
            dense if index in only_dense or (index + 1) % step else moe,
        )
        for index, window in enumerate(windows)
    )
