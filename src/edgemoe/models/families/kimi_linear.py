"""Kimi Linear: Kimi delta attention; some layers have latent attention without rotation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, check_size, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_is_dense, read_kinds, read_mlp, read_moe
from edgemoe.models.families.gguf_names import GROUPED_KEYS, GgufFamily, gguf_table, key_heads
from edgemoe.models.families.hybrid_fields import FULL, LINEAR, minus_exp
from edgemoe.models.families.latent_fields import LATENT_GGUF_KEYS, finish_latent
from edgemoe.models.families.latent_names import GGUF_LATENT, LATENT
from edgemoe.models.families.mamba_fields import read_unrotated
from edgemoe.models.families.names import (
    BLOCK_SPARSE_EXPERTS,
    MTP,
    PROJECTIONS,
    Name,
    Names,
    Steps,
    hugging_face,
)
from edgemoe.models.mixers.kimi_delta import KimiDeltaSpec
from edgemoe.models.mixers.latent import LatentSpec
from edgemoe.models.spec import LayerSpec, MixerSpec, ModelSpec, RouterSpec
from edgemoe.source_ref import Indices, Reshaped, TakeColumns, TakeRows


def read_kimi_linear(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``kimi_linear`` configuration."""
    reader.refuse("moe_layer_freq", (1,), "experts are in every layer after the first dense ones")
    reader.refuse("mla_use_nope", (True,), "latent attention does not rotate in this family")
    moe = read_moe(
        reader, _read_router(reader), reader.size("n_shared_experts", 1, "num_shared_experts", at_least=0)
    )
    dense = read_mlp(reader)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 1, at_least=0))
    linear = reader.table("linear_attn_config")
    mixers: dict[str, MixerSpec] = {LINEAR: _read_delta(reader, linear), FULL: _read_latent(reader)}
    layers = tuple(
        LayerSpec(mixers[kind], dense if is_mlp else moe)
        for kind, is_mlp in zip(_kinds(reader, linear), is_dense, strict=True)
    )
    spec = read_unrotated(reader, layers, reader.number("rms_norm_eps", 1e-5), 1.0, 1.0)
    # The family ties nothing, whatever is said.
    return replace(spec, has_tied_head=False)


def _read_router(reader: ConfigReader) -> RouterSpec:
    reader.refuse("moe_router_activation_func", ("sigmoid",), "the family scores experts by the sigmoid")
    return RouterSpec(
        reader.size("num_local_experts", 256, "num_experts", "n_routed_experts"),
        reader.size("num_experts_per_tok", 8, "num_experts_per_token"),
        "sigmoid",
        reader.flag("norm_topk_prob", True, "moe_renormalize"),
        has_choice_bias=True,
        num_groups=reader.size("n_group", 1, "num_expert_group"),
        kept_groups=reader.size("topk_group", 1),
        sum_eps=1e-20,
        scale=reader.number("routed_scaling_factor", 2.446),
    )


def _read_delta(reader: ConfigReader, linear: dict[str, Any]) -> KimiDeltaSpec:
    """The table of linear layers counts where it says something."""

    def size(key: str, other: str, default: int) -> int:
        stated = reader.size(other, default)
        return check_size(f"linear_attn_config.{key}", linear.pop(key, stated))

    head_dim = size("head_dim", "linear_head_dim", 128)
    num_heads = size("num_heads", "linear_num_heads", 32)
    return KimiDeltaSpec(
        num_heads,
        head_dim,
        size("short_conv_kernel_size", "linear_conv_kernel_dim", 4),
        rank=head_dim,
        activation=read_activation(reader),
    )


def _read_latent(reader: ConfigReader) -> LatentSpec:
    plain_dim, rotary_dim = reader.size("qk_nope_head_dim", 128), reader.size("qk_rope_head_dim", 64)
    reader.refuse("qk_head_dim", (plain_dim + rotary_dim,), "it is the sum of the two parts of a head")
    # The latent is shared by all heads, and its heads have sizes of their own.
    for key in ("num_key_value_heads", "head_dim"):
        reader.optional(key, None)
    return LatentSpec(
        reader.require_size("num_attention_heads"),
        reader.size("q_lora_rank", 0, at_least=0),
        reader.size("kv_lora_rank", 512),
        plain_dim,
        rotary_dim,
        reader.size("v_head_dim", 128),
        (plain_dim + rotary_dim) ** -0.5,
        None,
        reader.flag("attention_bias", False),
    )


def _kinds(reader: ConfigReader, linear: dict[str, Any]) -> list[str]:
    """What each layer is; the table of linear layers counts from 1."""
    num_layers = reader.require_size("num_hidden_layers")
    full, delta = linear.pop("full_attn_layers", None), linear.pop("kda_layers", None)
    if linear:
        raise UnsupportedModelError(f"config.json: linear_attn_config is not known to have {shown(linear)}")
    default = [FULL if layer and layer % 4 == 0 else LINEAR for layer in range(num_layers)]
    if full is not None and delta is not None:
        if not isinstance(full, list) or not isinstance(delta, list):
            raise UnsupportedModelError("config.json: linear_attn_config does not list its layers")
        default = [FULL if layer + 1 in full else LINEAR for layer in range(num_layers)]
        if sorted([*full, *delta]) != list(range(1, num_layers + 1)):
            raise UnsupportedModelError(
                f"config.json: linear_attn_config does not name each of the {num_layers} layers once"
            )
    return read_kinds(reader, (LINEAR, FULL), default)


def delta_of(spec: ModelSpec, layer: int) -> KimiDeltaSpec:
    """The mixer of a linear layer."""
    delta = spec.layers[layer].mixer
    assert isinstance(delta, KimiDeltaSpec), "only linear layers have these names"
    return delta


def _padding(spec: ModelSpec, layer: int) -> Indices | None:
    """Places of the rank's entries, then -1; None where nothing needs to be filled up."""
    delta = delta_of(spec, layer)
    place = np.arange(delta.padded_rank)
    return None if delta.rank == delta.padded_rank else np.where(place < delta.rank, place, -1)


def _padded_rows(spec: ModelSpec, layer: int) -> Steps:
    padding = _padding(spec, layer)
    return () if padding is None else (TakeRows(padding),)


def _padded_columns(spec: ModelSpec, layer: int) -> Steps:
    padding = _padding(spec, layer)
    return () if padding is None else (TakeColumns(padding),)


_DELTA: dict[str, Names] = {
    **{f"delta.{p}.weight": (f"self_attn.{p}_proj.weight",) for p in "qkv"},
    **{f"delta.conv_{p}.weight": (f"self_attn.{p}_conv1d.weight",) for p in "qkv"},
    **{
        f"delta.{ours}_{half}.weight": (Name(f"self_attn.{theirs}_{half}_proj.weight", steps),)
        for ours, theirs in (("forget", "f"), ("gate", "g"))
        for half, steps in (("a", _padded_rows), ("b", _padded_columns))
    },
    "delta.beta.weight": ("self_attn.b_proj.weight",),
    "delta.decay": (Name("self_attn.A_log", minus_exp),),
    "delta.dt_bias": ("self_attn.dt_bias",),
    "delta.norm.weight": ("self_attn.o_norm.weight",),
    "delta.out.weight": ("self_attn.o_proj.weight",),
}
# Published files have experts under the first name, and what transformers saves has dense networks there too.
_BLOCKS = ("block_sparse_moe", "mlp")
_NETWORKS: dict[str, Names] = {
    "router.weight": tuple(f"{block}.gate.weight" for block in _BLOCKS),
    "router.choice_bias": tuple(f"{block}.gate.e_score_correction_bias" for block in _BLOCKS),
    **{
        f"{ours}.{p}.weight": tuple(f"{block}.{theirs}{p}_proj.weight" for block in _BLOCKS)
        for ours, theirs in (("shared", "shared_experts."), ("mlp", ""))
        for p in PROJECTIONS
    },
}


def finish_kinds(own: dict[str, Any], config: dict[str, Any]) -> None:
    """Kinds of layers, of which those without heads of keys are linear, and what latent attention shares."""
    finish_latent(own, config)
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))
    heads = config.pop("num_key_value_heads")
    if not isinstance(heads, list) or len(heads) < config["num_hidden_layers"]:
        raise UnsupportedModelError("GGUF key attention.head_count_kv does not say which layers are linear")
    config["layer_types"] = [FULL if count else LINEAR for count in heads[: config["num_hidden_layers"]]]


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    finish_kinds(own, config)
    config["linear_num_heads"] = config["num_attention_heads"]


def says_kinds(spec: ModelSpec) -> dict[str, Any]:
    """Kinds of layers, and sizes of which no configuration has one alone."""
    found: dict[str, Any] = {"attention.head_count_kv": key_heads(spec)}
    for layer in spec.layers:
        match layer.mixer:
            case KimiDeltaSpec() as delta:
                found |= {"ssm.conv_kernel": delta.num_taps, "kda.head_dim": delta.head_dim}
            case LatentSpec() as latent:
                found["rope.dimension_count"] = latent.rotary_dim
    return found


def _taps(spec: ModelSpec, layer: int) -> Steps:
    """Files have an axis of length 1 on either side of the channels."""
    delta = delta_of(spec, layer)
    return (Reshaped((delta.inner_width, delta.num_taps), (1, delta.inner_width, 1, delta.num_taps)),)


def column(spec: ModelSpec, layer: int) -> Steps:
    """A number for each head, which files have as a matrix of one column."""
    num_heads = delta_of(spec, layer).num_heads
    return (Reshaped((num_heads,), (num_heads, 1)),)


# What files of this family and of Ling 3 have in common.
GGUF_KEYS: dict[str, str] = {
    **{key: name for key, name in GROUPED_KEYS.items() if key not in LATENT_GGUF_KEYS},
    "attention.head_count_kv": "num_key_value_heads",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
}
GGUF_DELTA: dict[str, Names] = {
    **{f"delta.{p}.weight": (f"attn_{p}.weight",) for p in "qkv"},
    **{f"delta.conv_{p}.weight": (Name(f"ssm_conv1d_{p}.weight", _taps),) for p in "qkv"},
    "delta.beta.weight": ("ssm_beta.weight",),
    "delta.dt_bias": ("ssm_dt.bias",),
    "delta.norm.weight": ("ssm_norm.weight",),
    "delta.out.weight": ("attn_output.weight",),
}
_GGUF_RANKS: dict[str, Names] = {
    f"delta.{ours}_{half}.weight": (Name(f"ssm_{theirs}_{half}.weight", steps),)
    for ours, theirs in (("forget", "f"), ("gate", "g"))
    for half, steps in (("a", _padded_rows), ("b", _padded_columns))
}

FAMILY = Family(
    "Kimi Linear",
    ("kimi_linear",),
    read_kimi_linear,
    hugging_face({**LATENT, **_NETWORKS, **_DELTA}, experts=BLOCK_SPARSE_EXPERTS, extra_layers=MTP),
    GgufFamily(
        "kimi-linear",
        {
            **{key: name for key, name in GGUF_KEYS.items() if key != "rope.freq_base"},
            "ssm.conv_kernel": "linear_conv_kernel_dim",
            "kda.head_dim": "linear_head_dim",
        },
        gguf_table(
            {**GGUF_LATENT, **GGUF_DELTA, **_GGUF_RANKS, "delta.decay": (Name("ssm_a", column),)},
            extra_layers=MTP,
        ),
        {"norm_topk_prob": True, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1},
        checked={"expert_gating_func": (2,)},
        # Nothing rotates.
        ignored=(*LATENT_GGUF_KEYS, "rope.freq_base", "nextn_predict_layers"),
        per_layer=("attention.head_count_kv",),
        finish=_finish,
        says=says_kinds,
        unheeded=("expert_weights_norm",),
    ),
    defaults={
        "vocab_size": 163840,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "moe_intermediate_size": 1024,
        "num_hidden_layers": 27,
        "num_attention_heads": 32,
        "max_position_embeddings": 1048576,
    },
    unused=("num_nextn_predict_layers", "use_grouped_topk"),
)
