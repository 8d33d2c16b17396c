"""Nemotron 3 hybrids: each layer is one part: Mamba-2, attention without rotation, experts, or a network."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation, read_attention, read_grouped_router
from edgemoe.models.families.gguf_names import GROUPED_KEYS, GgufFamily, gguf_table
from edgemoe.models.families.mamba_fields import (
    ATTENTION,
    GGUF_MAMBA,
    MAMBA,
    check_mamba,
    mamba_names,
    read_step_limits,
    read_unrotated,
    says_mamba,
)
from edgemoe.models.families.names import MTP, Names, hugging_face
from edgemoe.models.mixers.mamba2 import Mamba2Spec
from edgemoe.models.spec import (
    ExpertSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    SharedExpertSpec,
)

_MOE, _MLP = "moe", "mlp"
_LETTERS = {"M": MAMBA[0], "*": ATTENTION[0], "E": _MOE, "-": _MLP}
# What published files have, of training: a step that the model itself hardly ever falls below.
_LEAST_STEP = 1e-3
_DEFAULT_KINDS = (MAMBA[0], _MOE, ATTENTION[0], _MLP)


def read_nemotron(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``nemotron_h`` configuration."""
    # Attention has no biases in this family, whatever is said.
    reader.optional("attention_bias", None)
    attention = LayerSpec(read_attention(reader), None)
    layers = {
        **dict.fromkeys(MAMBA, LayerSpec(_read_mamba(reader), None)),
        **dict.fromkeys(ATTENTION, attention),
        _MOE: LayerSpec(None, _read_experts(reader)),
        _MLP: LayerSpec(None, _read_mlp(reader)),
    }
    kinds = _kinds(reader, layers.keys())
    eps = reader.number("layer_norm_epsilon", 1e-5)
    spec = read_unrotated(reader, tuple(layers[kind] for kind in kinds), eps, 1.0, 1.0)
    # The family ties nothing, whatever is said.
    return replace(spec, has_tied_head=False)


def _activation(reader: ConfigReader) -> str:
    return read_activation(reader, "mlp_hidden_act", "relu2")


def _read_mlp(reader: ConfigReader) -> MLPSpec:
    width, has_bias = reader.require_size("intermediate_size"), reader.flag("mlp_bias", False)
    return MLPSpec(width, _activation(reader), is_gated=False, has_bias=has_bias)


def _read_experts(reader: ConfigReader) -> MoESpec:
    activation = _activation(reader)
    shared = reader.require_size("moe_shared_expert_intermediate_size")
    has_bias = reader.flag("mlp_bias", False)  # of all matrices but the chosen experts'
    latent_width = reader.size("moe_latent_size", 0, at_least=0)
    return MoESpec(
        read_grouped_router(reader),
        ExpertSpec(reader.require_size("moe_intermediate_size"), activation, is_gated=False),
        SharedExpertSpec(shared, activation, is_gated=False, has_bias=has_bias),
        latent_width=latent_width,
        has_latent_bias=bool(latent_width) and has_bias,
    )


def _read_mamba(reader: ConfigReader) -> Mamba2Spec:
    """Older names come first: transformers lets them win."""
    limits = read_step_limits(reader, "mamba_dt_limit")
    if limits != (0, math.inf):
        raise UnsupportedModelError(
            f"config.json: time_step_limit = {list(limits)} is not supported: programs that run this family"
            " disagree about it"
        )
    least = reader.number("time_step_min", _LEAST_STEP, "mamba_dt_min")
    if least > _LEAST_STEP:
        raise UnsupportedModelError(
            f"config.json: time_step_min = {least:g} is not supported: transformers makes no step"
            " shorter than that, and other programs that run this family do"
        )
    mamba = Mamba2Spec(
        reader.size("mamba_num_heads", 128),
        reader.size("mamba_head_dim", 64),
        reader.size("mamba_n_groups", 8, "n_groups"),
        reader.size("ssm_state_size", 128),
        reader.size("mamba_d_conv", 4, "conv_kernel"),
        reader.flag("mamba_conv_bias", True, "use_conv_bias"),
        reader.flag("use_bias", False),
        limits,
        read_activation(reader, "mamba_hidden_act"),
    )
    check_mamba(mamba)
    return mamba


def _kinds(reader: ConfigReader, known: Collection[str]) -> list[str]:
    """What each layer is: by a list of words, else by a pattern of letters."""
    kinds = reader.optional("layers_block_type", None, "layer_types")
    pattern = reader.optional("hybrid_override_pattern", None)
    if kinds is None and pattern is not None:
        if not isinstance(pattern, str) or not {*pattern} <= _LETTERS.keys():
            raise UnsupportedModelError(
                f"config.json: hybrid_override_pattern {shown(pattern)} has other letters than"
                f" {' '.join(_LETTERS)}"
            )
        kinds = [_LETTERS[letter] for letter in pattern]
    kinds = list(_DEFAULT_KINDS) if kinds is None else kinds
    if not isinstance(kinds, list) or not all(kind in known for kind in kinds):
        raise UnsupportedModelError(
            f"config.json: layers_block_type is {shown(kinds)}; it must be a list of {', '.join(known)}"
        )
    return kinds


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """The kind of a layer is that of its tensors."""
    config["num_hidden_layers"] -= int(own.get("nextn_predict_layers", 0))
    signs = {"ssm_in.weight": MAMBA[0], "attn_q.weight": ATTENTION[0], "ffn_gate_inp.weight": _MOE}
    kinds = []
    for layer in range(config["num_hidden_layers"]):
        found = [kind for sign, kind in signs.items() if f"blk.{layer}.{sign}" in names]
        kinds.append(found[0] if found else _MLP)
    config["layers_block_type"] = kinds
    for key in ("num_key_value_heads", "intermediate_size"):
        if isinstance(config.get(key), list):
            config[key] = max(config[key]) or 1
    config["mamba_head_dim"] = own.pop("ssm.inner_size") // config["mamba_num_heads"]
    config["use_conv_bias"] = any(name.endswith("ssm_conv1d.bias") for name in names)
    config["use_bias"] = any(name.endswith("ssm_in.bias") for name in names)


def _says(spec: ModelSpec) -> dict[str, Any]:
    """Kinds of layers by what they lack, and one epsilon under both names."""
    if any(isinstance(layer.feed_forward, MLPSpec) for layer in spec.layers):
        raise UnsupportedModelError(
            "Nemotron 3 with dense networks beside the experts cannot be exported: llama.cpp runs none"
        )
    width = spec.moe(spec.moe_layers[0]).expert.width
    return {
        **says_mamba(spec),
        "feed_forward_length": [width if layer.feed_forward else 0 for layer in spec.layers],
        "moe_latent_size": spec.moe(spec.moe_layers[0]).latent_width or None,
        "attention.layer_norm_epsilon": spec.norm_eps,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
    }


# Of networks and around the experts; with biases where networks have them.
_MATRICES = {
    **{f"shared.{p}": f"shared_experts.{p}_proj" for p in ("up", "down")},
    **{f"mlp.{p}": f"{p}_proj" for p in ("up", "down")},
    "latent.in": "fc1_latent_proj",
    "latent.out": "fc2_latent_proj",
}
_LAYERS: dict[str, Names] = {
    "attention_norm.weight": ("norm.weight",),
    "ffn_norm.weight": ("norm.weight",),
    **{f"attention.{p}.weight": (f"mixer.{p}_proj.weight",) for p in "qkvo"},
    **mamba_names("mixer"),
    "router.weight": ("mixer.gate.weight",),
    "router.choice_bias": ("mixer.gate.e_score_correction_bias",),
    **{
        f"{ours}.{kind}": (f"mixer.{theirs}.{kind}",)
        for ours, theirs in _MATRICES.items()
        for kind in ("weight", "bias")
    },
}
_EXPERTS: dict[str, Names] = {
    p: (f"mixer.experts.{{e}}.{p}_proj.weight", f"mixer.experts.{p}_proj") for p in ("up", "down")
}
# Nothing rotates; and of two names for one epsilon llama.cpp reads the other.
_UNREAD_KEYS = (
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.finetuned"),
    *("attention.layer_norm_epsilon", "attention.value_length", "nextn_predict_layers"),
)
# Any layer may be without experts here.
_DENSE_FIRST = "leading_dense_block_count"

FAMILY = Family(
    "Nemotron 3",
    ("nemotron_h",),
    read_nemotron,
    hugging_face(
        _LAYERS,
        prefixes=("backbone.", "model."),
        ignored={r"(model\.|backbone\.)?mtp\..+": MTP},
        experts=_EXPERTS,
    ).with_top({"embed.weight": ("embeddings.weight",), "norm.weight": ("norm_f.weight",)}),
    GgufFamily(
        "nemotron_h_moe",
        {
            **{key: name for key, name in GROUPED_KEYS.items() if key not in (*_UNREAD_KEYS, _DENSE_FIRST)},
            "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
            "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
            "ssm.conv_kernel": "conv_kernel",
            "ssm.state_size": "ssm_state_size",
            "ssm.group_count": "n_groups",
            "ssm.time_step_rank": "mamba_num_heads",
            "moe_latent_size": "moe_latent_size",
        },
        gguf_table(
            {
                "ffn_norm.weight": ("attn_norm.weight",),
                "latent.in.weight": ("ffn_latent_down.weight",),
                "latent.out.weight": ("ffn_latent_up.weight",),
                **GGUF_MAMBA,
            },
            extra_layers=MTP,
        ),
        implied={"norm_topk_prob": False},
        checked={"expert_gating_func": (0, 2)},
        ignored=_UNREAD_KEYS,
        per_layer=("attention.head_count_kv", "feed_forward_length"),
        finish=_finish,
        says=_says,
    ),
    defaults={
        "vocab_size": 131072,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "intermediate_size": 21504,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
        "norm_topk_prob": True,
    },
    unused=(
        *("num_hidden_layers", "n_shared_experts", "moe_shared_expert_overlap", "hidden_act", "norm_eps"),
        *("expand", "mamba_expand", "chunk_size", "mamba_chunk_size", "num_logits_to_keep"),
        *("use_mamba_kernels", "mamba_ssm_cache_dtype", "residual_in_fp32", "rescale_prenorm_residual"),
        *("time_step_max", "time_step_floor", "time_step_rank"),
        *("mamba_dt_max", "mamba_dt_init_floor", "mamba_proj_bias", "num_nextn_predict_layers"),
        *("mtp_layers_block_type", "mtp_hybrid_override_pattern", "sliding_window"),
    ),
)
