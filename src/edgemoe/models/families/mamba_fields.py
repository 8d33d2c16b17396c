"""What families with Mamba-2 layers have in common: limits of steps, names, models that do not rotate."""

from __future__ import annotations

import math
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, check_number, shown
from edgemoe.models.families.gguf_names import key_heads
from edgemoe.models.families.names import Name, Names, Steps
from edgemoe.models.mixers.mamba2 import Mamba2Spec
from edgemoe.models.spec import LayerSpec, ModelSpec
from edgemoe.source_ref import MinusExp, Reshaped, Rows

# What layers are called, by those who write layer_types.
MAMBA, ATTENTION = ("linear_attention", "mamba"), ("full_attention", "attention")
# Keys of rotation, which mean nothing where nothing rotates.
_ROTATION = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")


def read_step_limits(reader: ConfigReader, *aliases: str) -> tuple[float, float]:
    """What ``time_step_limit`` keeps a token's step between; the upper one may be infinite.

    Raises:
        UnsupportedModelError: it is no pair of such numbers.
    """
    limits = reader.optional("time_step_limit", [0.0, math.inf], *aliases)
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        raise UnsupportedModelError(f"config.json: time_step_limit is {shown(limits)}, not two numbers")
    low, high = (_limit(value) for value in limits)
    if not 0 <= low <= high:
        raise UnsupportedModelError(f"config.json: time_step_limit {shown(limits)} allows no step")
    return low, high


def _limit(value: Any) -> float:
    """A number, or infinity as JSON's writers spell it."""
    if isinstance(value, dict):
        value = value.get("__float__")
    if value == math.inf or value in ("Infinity", "inf"):
        return math.inf
    return check_number("time_step_limit", value)


def read_unrotated(
    reader: ConfigReader, layers: tuple[LayerSpec, ...], eps: float, embed_scale: float, head_scale: float
) -> ModelSpec:
    """Embedding, norm and head around layers that do not rotate."""
    for key in _ROTATION:
        reader.optional(key, None)
    # Where both are there, the former is the tokenizer's.
    reader.stand_in("model_max_length", "max_position_embeddings")
    return ModelSpec(
        family=str(reader.require("model_type")),
        hidden_size=reader.require_size("hidden_size"),
        vocab_size=reader.require_size("vocab_size"),
        layers=layers,
        norm_eps=eps,
        has_tied_head=reader.flag("tie_word_embeddings", False),
        max_context=reader.require_size("max_position_embeddings"),
        embed_scale=embed_scale,
        head_scale=head_scale,
    )


def check_mamba(mamba: Mamba2Spec) -> None:
    """Refuse sizes that do not fit each other.

    Raises:
        UnsupportedModelError: they do not.
    """
    if mamba.num_heads % mamba.num_groups:
        raise UnsupportedModelError(
            f"config.json: {mamba.num_heads} Mamba heads are not a multiple of {mamba.num_groups} groups"
        )


def _mamba(spec: ModelSpec, layer: int) -> Mamba2Spec:
    mamba = spec.layers[layer].mixer
    assert isinstance(mamba, Mamba2Spec), "only Mamba layers have these names"
    return mamba


def says_mamba(spec: ModelSpec) -> dict[str, Any]:
    """What GGUF files say of Mamba layers, which are all alike, and which layers are of them."""
    found: dict[str, Any] = {"attention.head_count_kv": key_heads(spec)}
    for layer in spec.layers:
        if isinstance(layer.mixer, Mamba2Spec):
            mamba = layer.mixer
            found |= {
                "ssm.conv_kernel": mamba.num_taps,
                "ssm.state_size": mamba.state_dim,
                "ssm.group_count": mamba.num_groups,
                "ssm.time_step_rank": mamba.num_heads,
                "ssm.inner_size": mamba.inner_width,
            }
    return found


def _z(spec: ModelSpec, layer: int) -> Steps:
    return (Rows(0, _mamba(spec, layer).inner_width),)


def _mixed(spec: ModelSpec, layer: int) -> Steps:
    mamba = _mamba(spec, layer)
    return (Rows(mamba.inner_width, mamba.inner_width + mamba.num_channels),)


def _steps(spec: ModelSpec, layer: int) -> Steps:
    mamba = _mamba(spec, layer)
    start = mamba.inner_width + mamba.num_channels
    return (Rows(start, start + mamba.num_heads),)


def _minus_exp(spec: ModelSpec, layer: int) -> Steps:
    return (MinusExp(),)


def _column(spec: ModelSpec, layer: int) -> Steps:
    """A number for each head, which files have as a matrix of one column."""
    num_heads = _mamba(spec, layer).num_heads
    return (Reshaped((num_heads,), (num_heads, 1)),)


def _flat(spec: ModelSpec, layer: int) -> Steps:
    mamba = _mamba(spec, layer)
    width = mamba.inner_width
    return (Reshaped((width,), (mamba.num_groups, width // mamba.num_groups)),)


def mamba_names(part: str) -> dict[str, Names]:
    """Names of a Mamba layer's tensors, which Hugging Face keeps under ``part`` of a layer."""
    return {
        "mamba.z.weight": (Name(f"{part}.in_proj.weight", _z),),
        "mamba.mixed.weight": (Name(f"{part}.in_proj.weight", _mixed),),
        "mamba.steps.weight": (Name(f"{part}.in_proj.weight", _steps),),
        "mamba.in.bias": (f"{part}.in_proj.bias",),
        "mamba.decay": (Name(f"{part}.A_log", _minus_exp),),
        "mamba.dt_bias": (f"{part}.dt_bias",),
        "mamba.skip": (f"{part}.D",),
        "mamba.conv.weight": (f"{part}.conv1d.weight",),
        "mamba.conv.bias": (f"{part}.conv1d.bias",),
        "mamba.norm.weight": (f"{part}.norm.weight",),
        "mamba.out.weight": (f"{part}.out_proj.weight",),
        "mamba.out.bias": (f"{part}.out_proj.bias",),
    }


GGUF_MAMBA: dict[str, Names] = {
    "mamba.z.weight": (Name("ssm_in.weight", _z),),
    "mamba.mixed.weight": (Name("ssm_in.weight", _mixed),),
    "mamba.steps.weight": (Name("ssm_in.weight", _steps),),
    "mamba.in.bias": ("ssm_in.bias",),
    "mamba.decay": (Name("ssm_a", _column),),
    "mamba.dt_bias": ("ssm_dt.bias",),
    "mamba.skip": (Name("ssm_d", _column),),
    "mamba.conv.weight": ("ssm_conv1d.weight",),
    "mamba.conv.bias": ("ssm_conv1d.bias",),
    "mamba.norm.weight": (Name("ssm_norm.weight", _flat),),
    "mamba.out.weight": ("ssm_out.weight",),
    "mamba.out.bias": ("ssm_out.bias",),
}
