"""Ling 3: Kimi delta attention with bounded decay; some layers have latent attention with one gate a head.

Experts are chosen as in DeepSeek-V3. The rules are those of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.bailing_moe import refuse_variants
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import (
    read_activation,
    read_is_dense,
    read_kinds,
    read_mlp,
    read_model,
    read_moe,
)
from edgemoe.models.families.gguf_names import GgufFamily, gguf_table
from edgemoe.models.families.hybrid_fields import FULL, LINEAR, minus_exp
from edgemoe.models.families.kimi_linear import (
    GGUF_DELTA,
    GGUF_KEYS,
    column,
    delta_of,
    finish_kinds,
    says_kinds,
)
from edgemoe.models.families.latent_fields import LATENT_GGUF_KEYS, read_latent
from edgemoe.models.families.latent_names import GGUF_LATENT, LATENT
from edgemoe.models.families.names import MLP, MTP, SHARED, Name, Names, Steps, hugging_face
from edgemoe.models.mixers.kimi_delta import KimiDeltaSpec
from edgemoe.models.spec import LayerSpec, MixerSpec, ModelSpec, RouterSpec
from edgemoe.source_ref import Negated, Rows

# Where a configuration says nothing: of rotation, and of how much a token is forgotten at most.
_THETA, _LOWEST_LOG = 6_000_000.0, -5.0


def read_bailing_hybrid(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``bailing_hybrid`` configuration."""
    refuse_variants(reader)
    # What transformers writes; where both are there, the former is the tokenizer's.
    reader.stand_in("model_max_length", "max_position_embeddings")
    num_shared = reader.size("n_shared_experts", 1, "num_shared_experts", at_least=0)
    moe, dense = read_moe(reader, _read_router(reader), num_shared), read_mlp(reader)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 2, at_least=0))
    latent = replace(read_latent(reader, rotates_pairs=True, default_theta=_THETA), has_head_gate=True)
    mixers: dict[str, MixerSpec] = {LINEAR: _read_delta(reader), FULL: latent}
    layers = tuple(
        LayerSpec(mixers[kind], dense if is_mlp else moe)
        for kind, is_mlp in zip(_kinds(reader), is_dense, strict=True)
    )
    spec = read_model(reader, layers, default_eps=1e-6, default_theta=_THETA)
    # The family ties nothing, whatever is said.
    return replace(spec, has_tied_head=False)


def _read_router(reader: ConfigReader) -> RouterSpec:
    return RouterSpec(
        reader.size("num_experts", 512, "num_local_experts", "n_routed_experts"),
        reader.size("num_experts_per_tok", 8, "num_experts_per_token"),
        "sigmoid",
        reader.flag("norm_topk_prob", True, "moe_renormalize"),
        has_choice_bias=True,
        num_groups=reader.size("n_group", 8, "num_expert_group"),
        kept_groups=reader.size("topk_group", 4),
        sum_eps=1e-20,
        scale=reader.number("routed_scaling_factor", 2.5),
    )


def _read_delta(reader: ConfigReader) -> KimiDeltaSpec:
    """What transformers writes of linear layers counts before the keys that they are derived from."""
    head_dim = reader.size("head_dim", 128)
    num_taps = reader.size("short_conv_kernel_size", 4)
    bound = reader.number("kda_lower_bound", _LOWEST_LOG)
    if bound >= 0:
        raise UnsupportedModelError(f"config.json: kda_lower_bound is {bound:g}; it must be below 0")
    return KimiDeltaSpec(
        reader.size("linear_num_heads", reader.require_size("num_attention_heads")),
        reader.size("linear_head_dim", head_dim),
        reader.size("linear_conv_kernel_dim", num_taps),
        lowest_log=bound if reader.flag("kda_safe_gate", True) else 0.0,
        activation=read_activation(reader),
    )


def _kinds(reader: ConfigReader) -> list[str]:
    """What each layer is: by a list, else the last of every group sees everything."""
    num_layers = reader.require_size("num_hidden_layers")
    group = reader.size("layer_group_size", 6)
    default = [LINEAR if (layer + 1) % group else FULL for layer in range(num_layers)]
    return read_kinds(reader, (LINEAR, FULL), default)


def _part(place: int) -> Callable[[ModelSpec, int], Steps]:
    """The rows of queries, keys or values among those of all three."""

    def steps(spec: ModelSpec, layer: int) -> Steps:
        delta = delta_of(spec, layer)
        return (Rows(place * delta.inner_width, (place + 1) * delta.inner_width),)

    return steps


# Published files say "attention", what transformers saves under its own names "self_attn".
_BLOCKS = ("attention", "self_attn")


def _names(*ends: str, steps: Callable[[ModelSpec, int], Steps] | None = None) -> Names:
    """These ends after the name of either block."""
    whole = tuple(f"{block}.{end}" for block in _BLOCKS for end in ends)
    return whole if steps is None else tuple(Name(name, steps) for name in whole)


def _renamed(names: Names) -> Names:
    """Names of latent attention's tensors, also as this family's other block spells them."""
    found = [Name(name, lambda *_: ()) if isinstance(name, str) else name for name in names]
    others = [Name(n.template.replace("self_attn.", "attention."), n.steps) for n in found]
    return (*others, *found)


_LATENT: dict[str, Names] = {
    **{key: _renamed(names) for key, names in LATENT.items()},
    "attention.head_gate.weight": _names("g_proj.weight"),
    **{f"attention.o.{kind}": _names(f"dense.{kind}", f"o_proj.{kind}") for kind in ("weight", "bias")},
}
_DELTA: dict[str, Names] = {
    **{f"delta.{p}.weight": _names(f"{p}_proj.weight") for p in "qkv"},
    **{
        f"delta.conv_{p}.weight": (
            *_names(f"{p}_conv1d.weight"),
            *_names("conv1d.weight", steps=_part("qkv".index(p))),
        )
        for p in "qkv"
    },
    "delta.forget.weight": _names("f_proj.weight", "forget_gate.f_proj.weight"),
    "delta.gate.weight": _names("g_proj.weight"),
    "delta.beta.weight": _names("b_proj.weight"),
    "delta.decay": _names("A_log", "forget_gate.A_log", steps=minus_exp),
    "delta.dt_bias": _names("dt_bias", "forget_gate.dt_bias"),
    "delta.norm.weight": _names("o_norm.weight"),
    "delta.out.weight": _names("dense.weight", "o_proj.weight"),
}


def _negated(spec: ModelSpec, layer: int) -> Steps:
    """GGUF files have the exponentials of stored logarithms."""
    return (*column(spec, layer), Negated())


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    finish_kinds(own, config)


def _says(spec: ModelSpec) -> dict[str, Any]:
    """Linear layers are alike; a bound stands in files whether it is heeded or not."""
    bounds = {layer.mixer.lowest_log for layer in spec.layers if isinstance(layer.mixer, KimiDeltaSpec)}
    lowest = min(bounds, default=_LOWEST_LOG)
    return {
        **says_kinds(spec),
        "kda.safe_gate": lowest != 0,
        "kda.gate_lower_bound": lowest or _LOWEST_LOG,
        # llama.cpp would rotate as for images.
        "rope.dimension_sections": None,
    }


FAMILY = Family(
    "Ling 3",
    ("bailing_hybrid",),
    read_bailing_hybrid,
    hugging_face(
        {
            **MLP,
            **SHARED,
            **_LATENT,
            **_DELTA,
            "router.weight": ("mlp.gate.weight",),
            "router.choice_bias": ("mlp.gate.expert_bias", "mlp.gate.e_score_correction_bias"),
        },
        extra_layers=MTP,
    ).with_top({"embed.weight": ("word_embeddings.weight", "embed_tokens.weight")}),
    GgufFamily(
        "bailingmoe3",
        {
            **GGUF_KEYS,
            "ssm.conv_kernel": "short_conv_kernel_size",
            "kda.head_dim": "head_dim",
            "kda.safe_gate": "kda_safe_gate",
            "kda.gate_lower_bound": "kda_lower_bound",
        },
        gguf_table(
            {
                **GGUF_LATENT,
                **GGUF_DELTA,
                "attention.head_gate.weight": ("attn_gate.weight",),
                "delta.forget.weight": ("ssm_f_a.weight",),
                "delta.gate.weight": ("ssm_g_a.weight",),
                "delta.decay": (Name("ssm_a", _negated),),
            },
            extra_layers=MTP,
        ),
        {"norm_topk_prob": False, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1},
        checked={"expert_gating_func": (2,), "swiglu_clamp_exp": (0.0,), "swiglu_clamp_shexp": (0.0,)},
        ignored=(
            *LATENT_GGUF_KEYS,
            *("expert_shared_feed_forward_length", "nextn_predict_layers", "rope.dimension_sections"),
        ),
        per_layer=("attention.head_count_kv", "rope.dimension_sections"),
        finish=_finish,
        says=_says,
    ),
    defaults={
        "vocab_size": 157184,
        "hidden_size": 2560,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 42,
        "num_attention_heads": 32,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "max_position_embeddings": 262144,
    },
    unused=(
        *("router_dtype", "output_dropout", "mtp_loss_scaling_factor", "num_nextn_predict_layers"),
        *("moe_router_enable_expert_bias", "moe_router_enable_shared_expert", "num_mtp_layers"),
    ),
)
