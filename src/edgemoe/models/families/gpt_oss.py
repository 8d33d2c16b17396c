"""gpt-oss: every second layer sees a window; heads have sinks; experts have biases and a clamped SwiGLU.

The rules are those of the implementation in transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_model
from edgemoe.models.families.gguf_names import KEYS, GgufFamily, gguf_table
from edgemoe.models.families.names import ATTENTION, PROJECTIONS, TOP, Name, NameTable, Steps
from edgemoe.models.spec import AttentionSpec, ExpertSpec, LayerSpec, ModelSpec, MoESpec, RouterSpec
from edgemoe.source_ref import Rows, TakeColumns, Transposed

_KINDS = ("sliding_attention", "full_attention")
# Where a configuration says nothing of rotation.
_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def read_gpt_oss(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``gpt_oss`` configuration."""
    reader.optional("hidden_act", None)  # experts have their own SwiGLU, whatever is said
    reader.optional("initial_context_length", None)  # what rope_scaling calls the original one
    num_layers = reader.size("num_hidden_layers", 36)
    num_heads = reader.size("num_attention_heads", 64)
    has_bias = reader.flag("attention_bias", True)
    window = reader.size("sliding_window", 128)
    limit, alpha = reader.number("swiglu_limit", 7.0), reader.number("swiglu_alpha", 1.702)
    moe = MoESpec(
        RouterSpec(
            reader.size("num_local_experts", 128, "num_experts"),
            reader.size("num_experts_per_tok", 4, "experts_per_token"),
            "softmax_of_picked",
            has_bias=True,
        ),
        ExpertSpec(reader.size("intermediate_size", 2880), f"clamped_swiglu:{limit}:{alpha}", has_bias=True),
    )
    layers = tuple(
        LayerSpec(
            AttentionSpec(
                num_heads,
                reader.size("num_key_value_heads", num_heads if reader.has("num_key_value_heads") else 8),
                reader.size("head_dim", 64),
                has_qkv_bias=has_bias,
                has_o_bias=has_bias,
                window=window if kind == "sliding_attention" else 0,
                has_sinks=True,
            ),
            moe,
        )
        for kind in _kinds(reader, num_layers)
    )
    return read_model(reader, layers, default_eps=1e-5, default_theta=150000.0, default_rope=_ROPE)


def _kinds(reader: ConfigReader, num_layers: int) -> list[str]:
    """What each layer sees: by default a window and everything in turn."""
    kinds = reader.names("layer_types", [_KINDS[layer % 2] for layer in range(num_layers)])
    unknown = sorted(set(kinds) - set(_KINDS))
    if unknown or len(kinds) != num_layers:
        what = f"has {shown(unknown[0])}" if unknown else f"has {len(kinds)} entries"
        raise UnsupportedModelError(
            f"config.json: layer_types {what}; {num_layers} of {' and '.join(_KINDS)} are run"
        )
    return kinds


def _width(spec: ModelSpec, layer: int) -> int:
    return spec.moe(layer).expert.width


def _gates(spec: ModelSpec, layer: int) -> Steps:
    """Rows of the gate: every other one from the first on."""
    return (Rows(0, 2 * _width(spec, layer), 2),)


def _ups(spec: ModelSpec, layer: int) -> Steps:
    return (Rows(1, 2 * _width(spec, layer), 2),)


def _transposed_gates(spec: ModelSpec, layer: int) -> Steps:
    return (Transposed(), *_gates(spec, layer))


def _transposed_ups(spec: ModelSpec, layer: int) -> Steps:
    return (Transposed(), *_ups(spec, layer))


def _transposed(spec: ModelSpec, layer: int) -> Steps:
    return (Transposed(),)


def _gate_columns(spec: ModelSpec, layer: int) -> Steps:
    return (TakeColumns(2 * np.arange(_width(spec, layer))),)


def _up_columns(spec: ModelSpec, layer: int) -> Steps:
    return (TakeColumns(2 * np.arange(_width(spec, layer)) + 1),)


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Files need not say which layers see a window, and do not say that YaRN's bounds are not rounded."""
    pattern = own.pop("attention.sliding_window_pattern", None)
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        num_layers = config["num_hidden_layers"]
        pattern = [layer % pattern < pattern - 1 for layer in range(num_layers)]
    if pattern is not None:
        config["layer_types"] = [_KINDS[0] if sees_window else _KINDS[1] for sees_window in pattern]
    if config.get("rope_scaling", {}).get("rope_type") == "yarn":
        config["rope_scaling"]["truncate"] = False


FAMILY = Family(
    "gpt-oss",
    ("gpt_oss",),
    read_gpt_oss,
    NameTable(
        ("model.",),
        "layers.{l}.",
        TOP,
        {
            **ATTENTION,
            "attention.sinks.weight": ("self_attn.sinks",),
            "router.weight": ("mlp.router.weight",),
            "router.bias": ("mlp.router.bias",),
            "experts.gate_bias": (Name("mlp.experts.gate_up_proj_bias", _gate_columns),),
            "experts.up_bias": (Name("mlp.experts.gate_up_proj_bias", _up_columns),),
            "experts.down_bias": ("mlp.experts.down_proj_bias",),
        },
        # Of MXFP4 the reader makes matrices of (out, in); the others are stored as (in, out).
        {
            "gate": (
                Name("mlp.experts.gate_up_proj_blocks", _gates),
                Name("mlp.experts.gate_up_proj", _transposed_gates),
            ),
            "up": (
                Name("mlp.experts.gate_up_proj_blocks", _ups),
                Name("mlp.experts.gate_up_proj", _transposed_ups),
            ),
            "down": ("mlp.experts.down_proj_blocks", Name("mlp.experts.down_proj", _transposed)),
        },
    ),
    GgufFamily(
        "gpt-oss",
        {
            **KEYS,
            "attention.key_length": "head_dim",
            "expert_feed_forward_length": "intermediate_size",
            "attention.sliding_window": "sliding_window",
        },
        gguf_table(
            {
                "attention.sinks.weight": ("attn_sinks.weight",),
                "ffn_norm.weight": ("post_attention_norm.weight",),
                "router.bias": ("ffn_gate_inp.bias",),
                **{f"experts.{p}_bias": (f"ffn_{p}_exps.bias",) for p in PROJECTIONS},
            }
        ),
        implied={"hidden_act": "silu"},
        checked={"expert_gating_func": (0, 3)},
        ignored=("feed_forward_length",),
        finish=_finish,
    ),
    defaults={"vocab_size": 201088, "hidden_size": 2880, "max_position_embeddings": 131072},
)
