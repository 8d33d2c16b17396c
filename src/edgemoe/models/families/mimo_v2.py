"""MiMo-V2-Flash: most layers see a window and have sinks and more key heads; values and keys differ in size.

Experts are chosen as in DeepSeek-V3; none is shared. The rules are those of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import (
    read_grouped_router,
    read_is_dense,
    read_kinds,
    read_mlp,
    read_model,
    read_moe,
)
from edgemoe.models.families.gguf_names import GROUPED_KEYS, GgufFamily, gguf_table, key_heads
from edgemoe.models.families.names import MLP, MTP, hugging_face
from edgemoe.models.rope_config import rope_of_kind
from edgemoe.models.spec import AttentionSpec, LayerSpec, ModelSpec, RopeSpec

_SLIDING, _FULL = "sliding_attention", "full_attention"
# Where a configuration says nothing of rotation.
_THETAS = {_FULL: 5_000_000.0, _SLIDING: 10_000.0}
_SHARE = 0.334
# Keys of DeepSeek-V3's followers that this family has not.
_UNSAID = ("n_shared_experts", "first_k_dense_replace")
# Of these every sixth layer, and the first, sees everything where a configuration does not list them.
_FULL_EVERY = 6


def read_mimo(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``mimo_v2_flash`` configuration."""
    num_layers = reader.size("num_hidden_layers", 48)
    reader.refuse("n_shared_experts", (0,), "the family has no shared experts")
    moe, dense = read_moe(reader, read_grouped_router(reader)), read_mlp(reader)
    kinds = _kinds(reader, num_layers)
    # A rotation of layers that are not there may be one that gives no angles.
    attentions = {kind: _attention(reader, kind, kind in kinds) for kind in (_SLIDING, _FULL)}
    layers = tuple(
        LayerSpec(attentions[kind], dense if is_mlp else moe)
        for kind, is_mlp in zip(kinds, _are_dense(reader, num_layers), strict=True)
    )
    eps = reader.number("layernorm_epsilon", 1e-5)
    return read_model(reader, layers, default_eps=eps, default_theta=_THETAS[_FULL], default_share=_SHARE)


def _attention(reader: ConfigReader, kind: str, is_rotated: bool) -> AttentionSpec:
    """The attention of all layers of a kind; of those with a window the file may repeat what others have."""
    is_sliding = kind == _SLIDING
    heads, kv_heads = reader.size("num_attention_heads", 64), reader.size("num_key_value_heads", 4)
    head_dim, value_dim = reader.size("head_dim", 192), reader.size("v_head_dim", 128)
    for key, value in (("num_attention_heads", heads), ("head_dim", head_dim), ("v_head_dim", value_dim)):
        reader.refuse(f"swa_{key}", (value,), "layers with a window have as many as the others")
    sliding_heads = reader.size("swa_num_key_value_heads", 2 * kv_heads)
    has_sinks = {
        _SLIDING: reader.flag("add_swa_attention_sink_bias", True),
        _FULL: reader.flag("add_full_attention_sink_bias", False),
    }
    return AttentionSpec(
        heads,
        sliding_heads if is_sliding else kv_heads,
        head_dim,
        has_qkv_bias=reader.flag("attention_bias", False),
        window=_window(reader) if is_sliding else 0,
        rope=_rope(reader, kind, head_dim) if is_rotated else None,
        has_sinks=has_sinks[kind],
        value_dim=value_dim,
        value_scale=reader.number(
            "attention_value_scale", 1.0 if reader.has("attention_value_scale") else 0.707
        ),
    )


def _window(reader: ConfigReader) -> int:
    """Tokens seen, with the token itself; ``sliding_window_size`` counts those before it."""
    stated = reader.size("sliding_window", 129)
    before = reader.size("sliding_window_size", 0, at_least=0)
    return before + 1 if before else stated


def _rope(reader: ConfigReader, kind: str, head_dim: int) -> RopeSpec:
    share = reader.number("partial_rotary_factor", _SHARE)
    thetas = {
        _FULL: reader.number("rope_theta", _THETAS[_FULL]),
        _SLIDING: reader.number("swa_rope_theta", _THETAS[_SLIDING]),
    }
    given = reader.table("rope_parameters") or {kind: {"partial_rotary_factor": share}}
    defaults: dict[str, Any] = {"rope_theta": thetas[kind], "partial_rotary_factor": _SHARE}
    stated = given.get(kind)
    if isinstance(stated, dict) and "partial_rotary_factor" not in stated:
        rule = stated.get("rope_type") or stated.get("type") or "default"
        if rule != "default":
            raise UnsupportedModelError(
                f"config.json: rope_parameters has no partial_rotary_factor for {kind}, and with rope type"
                f" {shown(rule)} programs do not agree what that means; add it, {_SHARE} in this family"
            )
    context = reader.size("max_position_embeddings", 131_072)
    return rope_of_kind(given, kind, defaults, head_dim, context)


def _kinds(reader: ConfigReader, num_layers: int) -> list[str]:
    """What each layer sees: by ``layer_types``, or by a number for each, 1 for a window."""
    numbers = reader.sizes("hybrid_layer_pattern")
    default = [
        _FULL if layer == 0 or (layer + 1) % _FULL_EVERY == 0 else _SLIDING for layer in range(num_layers)
    ]
    if numbers:
        default = [_SLIDING if number else _FULL for number in numbers]
    return read_kinds(reader, (_SLIDING, _FULL), default)


def _are_dense(reader: ConfigReader, num_layers: int) -> list[bool]:
    """By ``mlp_layer_types``, or by a number for each layer, 0 for a dense one; by default the first."""
    numbers = reader.sizes("moe_layer_freq")
    if not numbers:
        return read_is_dense(reader, 1)
    if len(numbers) != num_layers:
        raise UnsupportedModelError(
            f"config.json: moe_layer_freq has {len(numbers)} entries; there are {num_layers} layers"
        )
    return [number == 0 for number in numbers]


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Kinds of layers and what differs between them, which GGUF files list layer by layer."""
    num_layers = config["num_hidden_layers"] - int(own.get("nextn_predict_layers", 0))
    config["num_hidden_layers"] = num_layers
    pattern, heads = own.pop("attention.sliding_window_pattern", None), config["num_key_value_heads"]
    if not isinstance(pattern, list) or len(pattern) < num_layers:
        raise UnsupportedModelError(
            "GGUF key attention.sliding_window_pattern does not say which layers see all"
        )
    kinds = [_SLIDING if is_sliding else _FULL for is_sliding in pattern[:num_layers]]
    by_kind = dict(zip(kinds, heads if isinstance(heads, list) else [heads] * num_layers, strict=False))
    config["layer_types"] = kinds
    config["num_key_value_heads"] = by_kind.get(_FULL, heads)
    config["swa_num_key_value_heads"] = by_kind.get(_SLIDING, config["num_key_value_heads"])
    if _FULL not in by_kind:
        config["num_key_value_heads"] = by_kind[_SLIDING]
    for kind, key in ((_SLIDING, "add_swa_attention_sink_bias"), (_FULL, "add_full_attention_sink_bias")):
        layer = kinds.index(kind) if kind in kinds else None
        config[key] = f"blk.{layer}.attn_sinks.weight" in names
    config["mlp_layer_types"] = [
        "sparse" if f"blk.{layer}.ffn_gate_inp.weight" in names else "dense" for layer in range(num_layers)
    ]
    share, scaling = own["rope.dimension_count"] / config["head_dim"], config.pop("rope_scaling")
    # llama.cpp stretches layers that see all, and no others.
    config["rope_parameters"] = {
        kind: {**stretch, "rope_theta": config[key], "partial_rotary_factor": share}
        for kind, key, stretch in ((_FULL, "rope_theta", scaling), (_SLIDING, "swa_rope_theta", {}))
    }


def _says(spec: ModelSpec) -> dict[str, Any]:
    """What differs between kinds of layers; a kind that is not there is said to be like the other."""
    attentions = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionSpec)]
    full = next((a for a in attentions if not a.window), attentions[0])
    sliding = next((a for a in attentions if a.window), attentions[0])
    assert full.rope is not None, "all layers of the family rotate"
    assert sliding.rope is not None, "all layers of the family rotate"
    return {
        "attention.head_count_kv": key_heads(spec),
        "attention.sliding_window": sliding.window or None,
        "attention.sliding_window_pattern": [bool(attention.window) for attention in attentions],
        "attention.value_length": full.value_dim,
        "attention.value_scale": full.value_scale,
        "rope.dimension_count": full.rope.rotary_dim,
        "rope.freq_base": full.rope.theta,
        "rope.freq_base_swa": sliding.rope.theta,
    }


FAMILY = Family(
    "MiMo-V2-Flash",
    ("mimo_v2_flash",),
    read_mimo,
    hugging_face(
        {
            **MLP,
            "attention.sinks.weight": ("self_attn.attention_sink_bias", "self_attn.sinks"),
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": ("mlp.gate.e_score_correction_bias",),
        },
        extra_layers=MTP,
        ignored={r"model\.mtp\..+": MTP},
    ),
    GgufFamily(
        "mimo2",
        {
            **{key: name for key, name in GROUPED_KEYS.items() if name not in _UNSAID},
            "attention.layer_norm_rms_epsilon": "layernorm_epsilon",
            "attention.value_length": "v_head_dim",
            "attention.value_scale": "attention_value_scale",
            "attention.sliding_window": "sliding_window",
            "rope.freq_base_swa": "swa_rope_theta",
        },
        gguf_table({"attention.sinks.weight": ("attn_sinks.weight",)}, extra_layers=MTP),
        {
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "attention_value_scale": 1.0,
            "n_group": 1,
            "topk_group": 1,
            "swa_rope_theta": 10_000.0,
        },
        checked={"expert_gating_func": (0, 2)},
        ignored=("rope.dimension_count", "nextn_predict_layers"),
        per_layer=("attention.head_count_kv", "attention.sliding_window_pattern"),
        finish=_finish,
        says=_says,
        unheeded=("expert_weights_norm", "expert_weights_scale"),
    ),
    defaults={
        "vocab_size": 152576,
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 48,
        "moe_intermediate_size": 2048,
        "num_experts_per_tok": 8,
        "n_routed_experts": 256,
        "norm_topk_prob": True,
        "max_position_embeddings": 131072,
    },
    unused=("num_mtp_layers", "num_nextn_predict_layers", "attention_chunk_size", "hybrid_block_size"),
)
