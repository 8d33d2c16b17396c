"""Gemma 4: a dense network beside the experts, norms after every part, two kinds of attention layers.

Layers with a window have heads, rotation and keys of their own; those that see everything may take the keys
as projected for values. The rules are those of transformers 5.23; the text part alone is run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, check_size, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table, key_heads
from edgemoe.models.families.names import (
    ATTENTION,
    AUDIO,
    MLP,
    TOP,
    VISION,
    Name,
    NameTable,
    first_half,
    second_half,
)
from edgemoe.models.rope_config import rope_of_kind
from edgemoe.models.spec import (
    AttentionSpec,
    ExpertSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    ResidualSpec,
    RopeSpec,
    RouterSpec,
)
from edgemoe.models.spec_check import check_spec
from edgemoe.source_ref import FloatArray

_SLIDING, _FULL = "sliding_attention", "full_attention"
_ROPE = {
    _SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    _FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}
# Of these every second to sixth layer sees everything where a configuration does not list them.
_FULL_EVERY = 6
# What GGUF files divide the frequencies of pairs by that do not turn.
_STANDSTILL = 1e30
_OTHERS = "the models of this family with experts have none"


def read_gemma4(reader: ConfigReader) -> ModelSpec:
    """Spec of the ``gemma4_text`` part of a configuration."""
    reader.refuse("enable_moe_block", (True,), "EdgeMoE runs the members of this family with experts")
    if not reader.flag("enable_moe_block", False):
        raise UnsupportedModelError("config.json: no layer has experts; EdgeMoE runs sparse models")
    reader.refuse("num_kv_shared_layers", (0,), _OTHERS)
    reader.refuse("use_double_wide_mlp", (False,), _OTHERS)
    reader.refuse("use_bidirectional_attention", ("vision",), "every token sees those before it alone")
    if reader.size("hidden_size_per_layer_input", 256, at_least=0):
        raise UnsupportedModelError(
            "config.json: hidden_size_per_layer_input is not 0: embeddings of each layer are not supported; "
            + _OTHERS
        )
    reader.optional("vocab_size_per_layer_input", None)
    width = reader.size("hidden_size", 2304)
    spec = ModelSpec(
        family=str(reader.require("model_type")),
        hidden_size=width,
        vocab_size=reader.size("vocab_size", 262_144),
        layers=_layers(reader),
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        has_tied_head=reader.flag("tie_word_embeddings", True),
        max_context=_context(reader),
        embed_scale=float(width**0.5),
        logit_cap=reader.number("final_logit_softcapping", 0) or None,
    )
    check_spec(spec)
    return spec


def _context(reader: ConfigReader) -> int:
    return reader.size("max_position_embeddings", 131_072)


def _layers(reader: ConfigReader) -> tuple[LayerSpec, ...]:
    activation = read_activation(reader, "hidden_activation", "gelu_pytorch_tanh")
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts"),
            reader.require_size("top_k_experts"),
            "softmax",
            renormalize=True,
            has_expert_scale=True,
            has_input_scale=True,
        ),
        ExpertSpec(reader.require_size("moe_intermediate_size"), activation),
        beside=MLPSpec(reader.size("intermediate_size", 9216), activation),
    )
    residual = ResidualSpec(has_post_norms=True, has_stream_scale=True)
    return tuple(LayerSpec(attention, moe, residual=residual) for attention in _attentions(reader))


def _attentions(reader: ConfigReader) -> list[AttentionSpec]:
    """The attention of every layer."""
    num_layers = reader.size("num_hidden_layers", 30)
    num_kv_heads = reader.size("num_key_value_heads", 4)
    shares_keys = reader.flag("attention_k_eq_v", False)
    sliding = AttentionSpec(
        reader.size("num_attention_heads", 8),
        num_kv_heads,
        reader.size("head_dim", 256),
        "head",
        *(reader.flag("attention_bias", False),) * 2,
        window=reader.size("sliding_window", 512),
        score_scale=1.0,
        normalizes_values=True,
    )
    num_global = reader.optional("num_global_key_value_heads", None)
    full = replace(
        sliding,
        head_dim=reader.size("global_head_dim", 512),
        num_kv_heads=num_global if num_global is not None and shares_keys else num_kv_heads,
        window=0,
        keys_are_values=shares_keys,
    )
    changes = reader.table("per_layer_config")
    if reader.has("per_layer_config"):  # says all of what the two keys for full layers would
        full = replace(full, head_dim=sliding.head_dim, num_kv_heads=num_kv_heads)
    found = []
    for layer, kind in enumerate(_kinds(reader, num_layers)):
        attention = sliding if kind == _SLIDING else full
        attention = _changed(attention, changes.get(str(layer), {}), layer)
        found.append(replace(attention, rope=_rope(reader, kind, attention.head_dim)))
    return found


def _kinds(reader: ConfigReader, num_layers: int) -> list[str]:
    """What each layer sees; the last one always everything."""
    default = [_FULL if (layer + 1) % _FULL_EVERY == 0 else _SLIDING for layer in range(num_layers)]
    kinds = reader.names("layer_types", default)
    unknown = sorted(set(kinds) - {_SLIDING, _FULL})
    if unknown or len(kinds) != num_layers:
        what = f"has {shown(unknown[0])}" if unknown else f"has {len(kinds)} entries"
        raise UnsupportedModelError(
            f"config.json: layer_types {what}; {num_layers} of {_SLIDING} and {_FULL} are run"
        )
    return [*kinds[:-1], _FULL]


def _changed(attention: AttentionSpec, changes: Any, layer: int) -> AttentionSpec:
    """What ``per_layer_config`` says of one layer."""
    known = ("head_dim", "num_key_value_heads")
    if not isinstance(changes, Mapping) or set(changes) - set(known):
        raise UnsupportedModelError(
            f"config.json: per_layer_config of layer {layer} is {shown(changes)};"
            f" {' and '.join(known)} are run"
        )
    return replace(
        attention,
        head_dim=check_size("head_dim", changes.get("head_dim", attention.head_dim)),
        num_kv_heads=check_size(
            "num_key_value_heads", changes.get("num_key_value_heads", attention.num_kv_heads)
        ),
    )


def _rope(reader: ConfigReader, kind: str, head_dim: int) -> RopeSpec:
    given = reader.table("rope_parameters") or _ROPE
    defaults = {"rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
    rope = rope_of_kind(given, kind, defaults, head_dim, _context(reader))
    if rope.kind == "default" and rope.rotary_dim != head_dim:
        raise UnsupportedModelError(
            f"config.json: partial_rotary_factor of {kind} is not supported beside rope type default, which"
            " rotates whole heads in this family; the rule that rotates a part of them is proportional"
        )
    return rope


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Kinds of layers and what differs between them, which GGUF files spread over many keys."""
    pattern = own.pop("attention.sliding_window_pattern", None)
    if isinstance(pattern, list):
        config["layer_types"] = [_SLIDING if is_sliding else _FULL for is_sliding in pattern]
    kinds = config.get("layer_types", [])
    heads = config.get("num_key_value_heads")
    if isinstance(heads, list):
        by_kind = dict(zip(kinds, heads, strict=False))
        config["num_key_value_heads"] = by_kind.get(_SLIDING, heads[-1])
        config["num_global_key_value_heads"] = by_kind.get(_FULL, heads[-1])
    config["head_dim"] = own.pop("attention.key_length_swa", config.get("global_head_dim"))
    for end, width in (("", config.get("global_head_dim")), ("_swa", config["head_dim"])):
        turning = own.get(f"rope.dimension_count{end}", width)
        if turning != width:
            raise UnsupportedModelError(
                f"GGUF key gemma4.rope.dimension_count{end} = {turning!r} is not supported; supported:"
                f" {width}, the size of a head"
            )
    config["rope_parameters"] = {
        _SLIDING: {**_ROPE[_SLIDING], "rope_theta": own.pop("rope.freq_base_swa", 10_000.0)},
        _FULL: {**_ROPE[_FULL], "rope_theta": own.pop("rope.freq_base", 10_000.0)},
    }


def _says(spec: ModelSpec) -> dict[str, Any]:
    """The two kinds of layers; the last one is always full."""
    mixers = [layer.mixer for layer in spec.layers]
    attentions = [mixer for mixer in mixers if isinstance(mixer, AttentionSpec)]
    full, sliding = attentions[-1], next((a for a in attentions if a.window), attentions[-1])
    found: dict[str, Any] = {
        "attention.head_count_kv": key_heads(spec),
        "attention.sliding_window": sliding.window or None,
        "attention.sliding_window_pattern": [bool(attention.window) for attention in attentions],
        "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": 0,
        # llama.cpp takes another value than none where nothing is said.
        "final_logit_softcapping": spec.logit_cap or 0.0,
    }
    for attention, end in ((full, ""), (sliding, "_swa")):
        assert attention.rope is not None, "all layers of the family rotate"
        sizes = ("attention.key_length", "attention.value_length", "rope.dimension_count")
        found |= {f"{key}{end}": attention.head_dim for key in sizes}
        found[f"rope.freq_base{end}"] = attention.rope.theta
    return found


def _adds(spec: ModelSpec) -> dict[str, FloatArray]:
    """Divisors of the frequencies of pairs in layers that see everything."""
    full = spec.layers[-1].mixer
    assert isinstance(full, AttentionSpec), "all layers of the family have attention"
    assert full.rope is not None, "all layers of the family rotate"
    turns = np.arange(full.head_dim // 2) < full.rope.scaling["num_turning"]
    return {"rope_freqs.weight": np.where(turns, 1, _STANDSTILL).astype(np.float32)}


_NORMS = {
    "attention_norm": "input_layernorm",
    "mixer_post_norm": "post_attention_layernorm",
    "dense_norm": "pre_feedforward_layernorm",
    "dense_post_norm": "post_feedforward_layernorm_1",
    "ffn_norm": "pre_feedforward_layernorm_2",
    "expert_post_norm": "post_feedforward_layernorm_2",
    "ffn_post_norm": "post_feedforward_layernorm",
}
_GGUF_NORMS = {
    "mixer_post_norm": "post_attention_norm",
    "dense_norm": "ffn_norm",
    "dense_post_norm": "post_ffw_norm_1",
    "ffn_norm": "pre_ffw_norm_2",
    "expert_post_norm": "post_ffw_norm_2",
    "ffn_post_norm": "post_ffw_norm",
}

FAMILY = Family(
    "Gemma 4",
    ("gemma4_text",),
    read_gemma4,
    NameTable(
        ("model.language_model.", "model."),
        "layers.{l}.",
        TOP,
        {
            **ATTENTION,
            **MLP,
            **{f"{ours}.weight": (f"{theirs}.weight",) for ours, theirs in _NORMS.items()},
            "router.weight": ("router.proj.weight",),
            "router.input_scale": ("router.scale",),
            "router.expert_scale": ("router.per_expert_scale",),
            "stream_scale.weight": ("layer_scalar",),
        },
        {
            "gate": (Name("experts.gate_up_proj", first_half),),
            "up": (Name("experts.gate_up_proj", second_half),),
            "down": ("experts.down_proj",),
        },
        ignored={
            r"model\.(vision_tower|embed_vision)\..+": VISION,
            r"model\.(audio_tower|embed_audio)\..+": AUDIO,
        },
    ),
    GgufFamily(
        "gemma4",
        {
            **{key: value for key, value in KEYS.items() if key != "rope.freq_base"},
            "expert_used_count": "top_k_experts",
            "attention.key_length": "global_head_dim",
            "feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "moe_intermediate_size",
            "attention.sliding_window": "sliding_window",
            "final_logit_softcapping": "final_logit_softcapping",
            "embedding_length_per_layer_input": "hidden_size_per_layer_input",
            "attention.shared_kv_layers": "num_kv_shared_layers",
        },
        replace(
            gguf_table(
                {
                    **{f"{ours}.weight": (f"{theirs}.weight",) for ours, theirs in _GGUF_NORMS.items()},
                    "router.input_scale": ("ffn_gate_inp.scale",),
                    "router.expert_scale": ("ffn_down_exps.scale",),
                    "stream_scale.weight": ("layer_output_scale.weight",),
                }
            ),
            # Divisors of frequencies: 1 for pairs that turn and a huge number for the others.
            ignored={r"rope_freqs\.weight": ""},
        ),
        implied={
            "enable_moe_block": True,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "hidden_act": None,
        },
        ignored=(
            "attention.value_length",
            "attention.value_length_swa",
            "rope.dimension_count",
            "rope.dimension_count_swa",
        ),
        per_layer=("attention.head_count_kv", "attention.sliding_window_pattern"),
        finish=_finish,
        says=_says,
        adds=_adds,
    ),
    holders=("gemma4",),
)
