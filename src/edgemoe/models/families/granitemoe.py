"""Granite 3 mixtures: multipliers of embedding, branches, scores and logits; some with a shared network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_model
from edgemoe.models.families.gguf_names import ATTENTION as GGUF_ATTENTION
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import (
    EXPERTS,
    Name,
    Names,
    Steps,
    first_half,
    hugging_face,
    pairs_side_by_side,
    second_half,
)
from edgemoe.models.spec import (
    ExpertSpec,
    LayerSpec,
    ModelSpec,
    MoESpec,
    ResidualSpec,
    RouterSpec,
    SharedExpertSpec,
)
from edgemoe.source_ref import Rows


def read_granite(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``granitemoe`` or ``granitemoeshared`` configuration."""
    has_bias = reader.flag("attention_bias", False)
    attention = read_attention(
        reader,
        has_qkv_bias=has_bias,
        has_o_bias=has_bias,
        # In place of the usual C^-0.5, not beside it.
        score_scale=reader.number("attention_multiplier", 1.0),
    )
    layers = (
        LayerSpec(
            attention,
            read_granite_experts(reader),
            residual=ResidualSpec(reader.number("residual_multiplier", 1.0)),
        ),
    ) * reader.require_size("num_hidden_layers")
    return read_model(
        reader,
        layers,
        default_eps=1e-6,
        default_theta=10000.0,
        embed_scale=reader.number("embedding_multiplier", 1.0),
        head_scale=1 / reader.number("logits_scaling", 1.0),
    )


def read_granite_experts(reader: ConfigReader) -> MoESpec:
    """The sparse part of a layer; experts are ``intermediate_size`` wide."""
    router = RouterSpec(
        reader.require_size("num_local_experts"),
        reader.require_size("num_experts_per_tok"),
        "softmax_of_picked",
    )
    activation = read_activation(reader)
    shared = reader.size("shared_intermediate_size", 0, at_least=0)
    return MoESpec(
        router,
        ExpertSpec(reader.require_size("intermediate_size"), activation),
        SharedExpertSpec(shared, activation) if shared else None,
    )


def _shared_gate(spec: ModelSpec, layer: int) -> Steps:
    shared = spec.moe(layer).shared
    assert shared is not None, "only a shared network has these names"
    return (Rows(0, shared.width),)


def _shared_up(spec: ModelSpec, layer: int) -> Steps:
    shared = spec.moe(layer).shared
    assert shared is not None, "only a shared network has these names"
    return (Rows(shared.width, 2 * shared.width),)


GRANITE_LAYERS: dict[str, Names] = {
    "router.weight": ("block_sparse_moe.router.layer.weight", "block_sparse_moe.router.weight"),
    "shared.gate.weight": (Name("shared_mlp.input_linear.weight", _shared_gate),),
    "shared.up.weight": (Name("shared_mlp.input_linear.weight", _shared_up),),
    "shared.down.weight": ("shared_mlp.output_linear.weight",),
}
GRANITE_EXPERTS: dict[str, Names] = {
    "gate": (Name("block_sparse_moe.input_linear.weight", first_half), *EXPERTS["gate"]),
    "up": (Name("block_sparse_moe.input_linear.weight", second_half), *EXPERTS["up"]),
    "down": ("block_sparse_moe.output_linear.weight", *EXPERTS["down"]),
}
GGUF_KEYS = {
    **{key: name for key, name in KEYS.items() if key != "expert_count"},
    "expert_count": "num_local_experts",
    "attention.key_length": "head_dim",
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Old files have the experts' width as that of all networks."""
    width = own.get("expert_feed_forward_length") or own.get("feed_forward_length")
    config["intermediate_size"] = width
    config["attention_bias"] = "blk.0.attn_q.bias" in names


def _gguf(is_shared: bool) -> GgufFamily:
    keys = dict(GGUF_KEYS)
    if is_shared:
        keys["expert_shared_feed_forward_length"] = "shared_intermediate_size"
    return GgufFamily(
        "granitemoe",
        keys,
        gguf_table(pairs_side_by_side(GGUF_ATTENTION)),
        ignored=("feed_forward_length", "expert_feed_forward_length"),
        finish=_finish,
        is_ours=lambda own: bool(own.get("expert_shared_feed_forward_length")) == is_shared,
    )


_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
_NAMES = hugging_face(GRANITE_LAYERS, experts=GRANITE_EXPERTS)
FAMILY = Family(
    "Granite 3 MoE", ("granitemoe",), read_granite, _NAMES, _gguf(is_shared=False), defaults=_DEFAULTS
)
SHARED_FAMILY = Family(
    "Granite 3 MoE with a shared network",
    ("granitemoeshared",),
    read_granite,
    _NAMES,
    _gguf(is_shared=True),
    defaults=_DEFAULTS,
)
