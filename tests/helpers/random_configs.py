"""Random tiny configurations of every family, with every key that changes what is computed.

``random_config(family, seed)`` makes the same one each time. Families whose routers choose with biases are in
random_grouped.py, those whose layers keep states of fixed size in random_hybrids.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helpers import random_switch
from helpers.random_fields import (
    Draw,
    Fields,
    beside_vision,
    common,
    dividing_heads,
    experts,
    heads,
    rope,
    rotated,
    widths,
)
from helpers.random_grouped import GROUPED
from helpers.random_hybrids import HYBRIDS


@dataclass(frozen=True)
class RandomConfig:
    """A configuration, and the keys whose values the engine may refuse. ``length``: of a text, in tokens."""

    family: str
    seed: int
    fields: Fields
    unsupported: frozenset[str]
    length: int
    dtype: str


def random_config(family: str, seed: int) -> RandomConfig:
    """The configuration with this number."""
    draw = Draw(random.Random(f"{family} {seed}"))
    fields = RANDOM[family](draw)
    dtype = draw.of("float32", "float32", "bfloat16", "float16")
    return RandomConfig(family, seed, fields, frozenset(draw.unsupported), draw.length, dtype)


def _qwen(draw: Draw, *, own_dim: bool = True) -> Fields:
    """What Qwen's mixtures have in common; one layer at least has experts."""
    step = draw.of(1, 1, 1, 2)
    num_layers = draw.num_layers = max(draw.num_layers, step)
    sparse = [layer for layer in range(num_layers) if (layer + 1) % step == 0]
    only_dense = [layer for layer in range(num_layers + 2) if draw.flag(0.2)]
    kept = draw.of(*sparse)
    return {
        **common(draw),
        **heads(draw, own_dim=own_dim),
        **widths(draw),
        **experts(draw, "num_experts"),
        **draw.activation(),
        "norm_topk_prob": draw.flag(),
        "decoder_sparse_step": step,
        "mlp_only_layers": [layer for layer in only_dense if layer != kept],
    }


def _qwen3(draw: Draw) -> Fields:
    fields = {**_qwen(draw), "attention_bias": draw.flag(0.3)}
    if draw.flag(0.4):
        fields |= {"use_sliding_window": True, "sliding_window": draw.window()}
    return rotated(draw, fields)


def _qwen2(draw: Draw) -> Fields:
    fields = {
        **_qwen(draw),
        "qkv_bias": draw.flag(0.7),
        "shared_expert_intermediate_size": draw.size(5, 72),
    }
    if draw.flag():
        fields |= {"use_sliding_window": True, "sliding_window": draw.window()}
        fields |= draw.maybe({"max_window_layers": draw.size(0, 5)})
        fields |= draw.maybe({"layer_types": draw.kinds("full_attention", "sliding_attention")})
    return rotated(draw, fields)


def _olmoe(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **dividing_heads(draw),  # whose norm is as wide as the model
        **experts(draw, "num_experts"),
        **draw.activation(),
        "intermediate_size": draw.size(5, 72),
        "norm_topk_prob": draw.flag(),
        "attention_bias": draw.flag(0.3),
        "clip_qkv": draw.of(None, None, 0.3, 1.0),
    }
    return rotated(draw, fields)


def _flex_olmo(draw: Draw) -> Fields:
    fields = {**_olmoe(draw), **heads(draw)}
    del fields["clip_qkv"]
    return rotated(draw, fields)


def _mixtral_fields(draw: Draw) -> Fields:
    return {
        **common(draw),
        **heads(draw),
        **experts(draw, "num_local_experts"),
        **draw.activation(),
        "intermediate_size": draw.size(5, 72),
        "sliding_window": draw.of(None, draw.window()),
        "router_jitter_noise": draw.of(0.0, 0.1),
    }


def _mixtral(draw: Draw) -> Fields:
    return rotated(draw, _mixtral_fields(draw))


def _phimoe(draw: Draw) -> Fields:
    fields = {
        **_mixtral_fields(draw),
        "num_local_experts": draw.size(2, 12),
        "num_experts_per_tok": 2,
        "router_jitter_noise": draw.of(0.0, 0.01, 0.1, 0.3),
        "attention_bias": draw.flag(),
        "lm_head_bias": draw.flag(),
    }
    fields = rotated(draw, fields, kinds=("longrope",))
    rotation = fields.get("rope_parameters", {"rope_type": "default"})
    if rotation["rope_type"] != "default":  # the class asks for both
        rotation |= {"short_mscale": draw.number(0.8, 1.4), "long_mscale": draw.number(0.8, 1.4)}
    return fields


def _minimax(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **heads(draw),
        **experts(draw, "num_local_experts"),
        **draw.activation(),
        "intermediate_size": draw.size(5, 72),
    }
    fields.setdefault("head_dim", 16)
    if draw.flag(0.2):
        return {
            **rotated(draw, fields, kinds=("linear", "llama3")),
            "rotary_dim": 2 * draw.size(2, fields["head_dim"] // 2),
        }
    return rotated(draw, fields, partial=True)


def _gpt_oss(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **heads(draw),
        **experts(draw, "num_local_experts"),
        "intermediate_size": draw.size(5, 72),
        "attention_bias": draw.flag(0.7),
        "sliding_window": draw.window(),
        "swiglu_limit": draw.of(7.0, draw.number(0.1, 1.5)),
        "swiglu_alpha": draw.of(1.702, draw.number(0.5, 3.0)),
        **draw.maybe({"layer_types": draw.kinds("full_attention", "sliding_attention")}, 0.7),
        **draw.maybe({"hidden_act": draw.of("gelu", "silu")}, 0.2),  # which the class has and nothing uses
    }
    fields.setdefault("head_dim", 16)
    return fields if draw.flag(0.1) else rotated(draw, fields)


def _gemma4(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **heads(draw),
        **widths(draw),
        **experts(draw, "num_experts", "top_k_experts"),
        **draw.activation("hidden_activation"),
        "enable_moe_block": True,
        "hidden_size_per_layer_input": 0,
        "attention_bias": draw.flag(0.3),
        "sliding_window": draw.window(),
        "final_logit_softcapping": draw.of(None, draw.number(0.5, 5.0)),
        "attention_k_eq_v": draw.flag(),
        "global_head_dim": draw.size(8, 48, 2),
        **draw.maybe({"layer_types": draw.kinds("full_attention", "sliding_attention")}, 0.7),
    }
    fields.setdefault("head_dim", 16)
    if draw.flag():
        num_heads = fields["num_attention_heads"]
        fields["num_global_key_value_heads"] = draw.of(*(n for n in (1, 2, 3, 4) if num_heads % n == 0))
    if draw.flag(0.2):  # what layers have of their own, in place of the two keys above
        kinds = fields.setdefault("layer_types", draw.kinds("full_attention", "sliding_attention"))
        kinds[-1] = "full_attention"
        own = {kind: {"head_dim": draw.size(8, 40, 2)} for kind in {*kinds}}
        own["full_attention"] |= draw.maybe({"num_key_value_heads": 1})
        fields["per_layer_config"] = {layer: own[kind] for layer, kind in enumerate(kinds)}
    if draw.flag(0.7):
        fields["rope_parameters"] = {
            "sliding_attention": rope(
                draw, fields["head_dim"], ("linear", "dynamic", "llama3", "yarn", "longrope")
            ),
            "full_attention": draw.of(
                {
                    "rope_type": "proportional",
                    "rope_theta": draw.of(1e4, 1e6),
                    "partial_rotary_factor": draw.of(0.25, 0.3, 0.5, 1.0),
                    **draw.maybe({"factor": draw.number(1.0, 8.0)}),
                },
                rope(draw, fields["global_head_dim"], ("linear", "llama3")),
            ),
        }
    return fields


def _granite(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **heads(draw),
        **experts(draw, "num_local_experts"),
        **draw.activation(),
        "intermediate_size": draw.size(5, 72),
        "attention_bias": draw.flag(0.3),
        "attention_multiplier": draw.of(0.25, draw.number(0.05, 0.6)),
        **draw.maybe({"embedding_multiplier": draw.number(0.3, 12)}),
        **draw.maybe({"residual_multiplier": draw.number(0.2, 1.3)}),
        **draw.maybe({"logits_scaling": draw.number(0.3, 16)}),
    }
    return rotated(draw, fields)


def _granite_shared(draw: Draw) -> Fields:
    return {**_granite(draw), "shared_intermediate_size": draw.of(0, draw.size(5, 96))}


def _qwen3_vl(draw: Draw) -> Fields:
    fields = _qwen(draw)
    del fields["norm_topk_prob"]
    fields = rotated(
        draw,
        {**fields, "attention_bias": draw.flag(0.3)},
        kinds=("linear", "dynamic", "llama3", "yarn", "longrope"),
    )
    dim = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    third = dim // 6
    if "rope_parameters" not in fields:
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    fields["rope_parameters"] |= {"mrope_section": [dim // 2 - 2 * third, third, third]}
    fields["rope_parameters"] |= {"mrope_interleaved": True}
    return beside_vision(fields)


RANDOM: Mapping[str, Callable[[Draw], Fields]] = {
    "flex_olmo": _flex_olmo,
    "gemma4_text": _gemma4,
    "gpt_oss": _gpt_oss,
    "granitemoe": _granite,
    "granitemoeshared": _granite_shared,
    "minimax_m2": _minimax,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "phimoe": _phimoe,
    "qwen2_moe": _qwen2,
    "qwen3_moe": _qwen3,
    "qwen3_vl_moe": _qwen3_vl,
    **GROUPED,
    **HYBRIDS,
    random_switch.FAMILY: random_switch.switch_fields,
}
