"""What Qwen3-Next and its followers have in common: gated delta nets, and gated attention in some layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.fields import read_activation, read_attention, read_kinds
from edgemoe.models.families.names import PROJECTIONS, Name, Names, Steps, plus_one
from edgemoe.models.mixers.delta_net import GatedDeltaNetSpec
from edgemoe.models.spec import MixerSpec, ModelSpec, SharedExpertSpec
from edgemoe.source_ref import MinusExp

LINEAR, FULL = "linear_attention", "full_attention"
# Of these layers one sees everything, where a configuration does not list the kinds.
_INTERVAL = 4


def read_mixers(reader: ConfigReader) -> list[MixerSpec]:
    """The mixer of every layer."""
    reader.refuse("attn_output_gate", (True,), "attention has a gate in this family")
    reader.refuse("mamba_ssm_dtype", ("float32",), "states are kept in single precision")
    has_bias = reader.flag("attention_bias", False)
    attention = read_attention(reader, "head", has_qkv_bias=has_bias, has_o_bias=has_bias)
    attention = replace(attention, has_gate=True)
    delta = GatedDeltaNetSpec(
        reader.size("linear_num_key_heads", 16),
        reader.size("linear_num_value_heads", 32),
        reader.size("linear_key_head_dim", 128),
        reader.size("linear_value_head_dim", 128),
        reader.size("linear_conv_kernel_dim", 4),
        read_activation(reader),
    )
    return [delta if kind == LINEAR else attention for kind in _kinds(reader)]


def read_shared(reader: ConfigReader) -> SharedExpertSpec:
    """The shared expert, with a gate of its own."""
    width = reader.size("shared_expert_intermediate_size", 512)
    return SharedExpertSpec(width, read_activation(reader), has_gate=True)


def _kinds(reader: ConfigReader) -> list[str]:
    num_layers = reader.require_size("num_hidden_layers")
    interval = reader.size("full_attention_interval", _INTERVAL)
    default = [LINEAR if (layer + 1) % interval else FULL for layer in range(num_layers)]
    return read_kinds(reader, (LINEAR, FULL), default)


def minus_exp(spec: ModelSpec, layer: int) -> Steps:
    """Decay rates that are stored as logarithms."""
    return (MinusExp(),)


# Norms are stored less one, but for the norm of what a delta net's heads make.
LAYERS: dict[str, Names] = {
    "attention_norm.weight": (Name("input_layernorm.weight", plus_one),),
    "ffn_norm.weight": (Name("post_attention_layernorm.weight", plus_one),),
    **{f"attention.{p}_norm.weight": (Name(f"self_attn.{p}_norm.weight", plus_one),) for p in "qk"},
    "delta.decay": (Name("linear_attn.A_log", minus_exp),),
    "delta.dt_bias": ("linear_attn.dt_bias",),
    "delta.conv.weight": ("linear_attn.conv1d.weight",),
    "delta.norm.weight": ("linear_attn.norm.weight",),
    "delta.out.weight": ("linear_attn.out_proj.weight",),
    "router.weight": ("mlp.gate.weight",),
    "shared_gate.weight": ("mlp.shared_expert_gate.weight",),
    **{f"shared.{p}.weight": (f"mlp.shared_expert.{p}_proj.weight",) for p in PROJECTIONS},
}
TOP_NORM: dict[str, Names] = {"norm.weight": (Name("norm.weight", plus_one),)}


def says_delta(spec: ModelSpec) -> dict[str, Any]:
    """What GGUF files say of delta nets; of layers with attention that every so many-th is one, if so."""
    deltas = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, GatedDeltaNetSpec)]
    is_delta = [isinstance(layer.mixer, GatedDeltaNetSpec) for layer in spec.layers]
    interval = is_delta.index(False) + 1 if False in is_delta else len(is_delta) + 1
    found: dict[str, Any] = {"full_attention_interval": interval}
    if is_delta != [bool((layer + 1) % interval) for layer in range(len(is_delta))]:
        found["attention.recurrent_layers"] = is_delta
    return found | {"ssm.inner_size": deltas[0].inner_width} if deltas else found


def finish_delta(own: dict[str, Any], config: dict[str, Any]) -> None:
    """What GGUF files say in other terms; their last layers may be those that predict further tokens."""
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))
    config["linear_value_head_dim"] = own.pop("ssm.inner_size") // config["linear_num_value_heads"]
    config["partial_rotary_factor"] = own.pop("rope.dimension_count") / config["head_dim"]
    heads = config["num_key_value_heads"]
    config["num_key_value_heads"] = max(heads) if isinstance(heads, list) else heads
    is_delta = own.get("attention.recurrent_layers")
    if isinstance(is_delta, list):  # else every so many-th layer has attention
        kinds = [LINEAR if delta else FULL for delta in is_delta]
        config["layer_types"] = kinds[: config["num_hidden_layers"]]


GGUF_KEYS: dict[str, str] = {
    "attention.key_length": "head_dim",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
    "full_attention_interval": "full_attention_interval",
}
GGUF_LAYERS: dict[str, Names] = {
    "ffn_norm.weight": ("post_attention_norm.weight",),
    "delta.qkv.weight": ("attn_qkv.weight",),
    "delta.z.weight": ("attn_gate.weight",),
    "delta.decay": ("ssm_a",),
    "delta.dt_bias": ("ssm_dt.bias", "ssm_dt"),
    "delta.conv.weight": ("ssm_conv1d.weight",),
    "delta.norm.weight": ("ssm_norm.weight",),
    "delta.out.weight": ("ssm_out.weight",),
}
GGUF_IGNORED = (
    *("feed_forward_length", "rope.dimension_sections", "attention.recurrent_layers"),
    *("rope.dimension_count", "ssm.inner_size", "nextn_predict_layers"),
)
GGUF_PER_LAYER = ("rope.dimension_sections", "attention.recurrent_layers", "attention.head_count_kv")
