"""Random configurations of families whose routers choose with biases or in groups; see random_configs.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from helpers.random_fields import (
    Draw,
    Fields,
    common,
    experts,
    grouped,
    heads,
    latent,
    rope,
    rotated,
    widths,
)


def _glm4(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **heads(draw),
        **widths(draw),
        **grouped(draw),
        **draw.activation(),
        "attention_bias": draw.flag(),
        "use_qk_norm": draw.flag(),
        "first_k_dense_replace": draw.size(0, draw.num_layers - 1),
    }
    return rotated(draw, fields, partial=True)


def _solar(draw: Draw) -> Fields:
    fields = _glm4(draw)
    for key in ("intermediate_size", "use_qk_norm", "first_k_dense_replace"):
        del fields[key]
    fields.setdefault("head_dim", 16)
    return rotated(draw, fields)


def _dots1(draw: Draw) -> Fields:
    fields = _glm4(draw)
    del fields["use_qk_norm"]
    fields["sliding_window"] = draw.of(None, draw.window(), draw.window())
    if fields["sliding_window"] is not None:
        fields |= draw.maybe({"max_window_layers": draw.size(0, 5)})
        fields |= draw.maybe({"layer_types": draw.kinds("full_attention", "sliding_attention")})
    return rotated(draw, fields)


def _ernie(draw: Draw) -> Fields:
    interval = draw.of(1, 1, 2, 3)
    draw.num_layers = max(draw.num_layers, interval)
    count = draw.num_layers
    start = draw.size(0, count - interval)
    fields = {
        **common(draw),
        **heads(draw),
        **widths(draw),
        **experts(draw, "moe_num_experts", "moe_k"),
        **draw.activation(),
        "use_bias": draw.flag(),
        "moe_num_shared_experts": draw.size(0, 3),
        "moe_layer_interval": interval,
        "moe_layer_start_index": start,
        "moe_layer_end_index": draw.of(-1, count - 1, draw.size(start + interval - 1, count - 1)),
        "moe_norm_min": draw.of(1e-12, draw.number(0.1, 0.9)),
    }
    return rotated(draw, fields)


def _hy(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **heads(draw),
        **widths(draw),
        **experts(draw, "num_experts"),
        **draw.activation(),
        "attention_bias": draw.flag(),
        "mlp_bias": draw.flag(),
        "num_shared_experts": draw.of(1, 1, 2, 3),
        "router_scaling_factor": draw.number(0.4, 3.0),
        "enable_moe_fp32_combine": draw.flag(),
        "mlp_layer_types": draw.sparse_kinds(),
    }
    fields.setdefault("head_dim", 16)
    return rotated(draw, fields)


def _mimo(draw: Draw) -> Fields:
    kv_heads = draw.of(1, 2, 3)
    fields = {
        **common(draw),
        **widths(draw),
        **grouped(draw, has_shared=False),
        **draw.activation(),
        "num_attention_heads": 2 * kv_heads * draw.of(1, 2),  # layers with a window have twice the keys
        "num_key_value_heads": kv_heads,
        "head_dim": draw.size(12, 48, 2),
        "v_head_dim": draw.size(3, 48),
        "attention_bias": draw.flag(),
        "sliding_window": draw.window(),
        "attention_value_scale": draw.of(None, 0.707, draw.number(0.3, 1.5)),
        "mlp_layer_types": draw.sparse_kinds(),
        **draw.maybe({"layer_types": draw.kinds("full_attention", "sliding_attention")}, 0.8),
        **draw.maybe({"sliding_window_size": draw.size(1, 20)}, 0.3),
    }
    if draw.flag(0.7):
        share = draw.of(0.25, 0.334, 0.5, 1.0)
        fields["rope_parameters"] = {
            kind: rope(draw, fields["head_dim"], ("linear", "dynamic", "llama3", "yarn", "longrope"), share)
            for kind in ("full_attention", "sliding_attention")
        }
    return fields


def _latent_rope(draw: Draw, fields: Fields) -> Fields:
    kinds = ("linear", "dynamic", "llama3", "yarn", "yarn", "longrope")
    return {**fields, "rope_parameters": rope(draw, fields["qk_rope_head_dim"], kinds)}


def _glm4_lite(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **latent(draw),
        **widths(draw),
        **grouped(draw),
        **draw.activation(),
        "rope_interleave": draw.flag(),
        "mlp_layer_types": draw.sparse_kinds(),
    }
    return _latent_rope(draw, fields)


def _deepseek3(draw: Draw) -> Fields:
    fields = _glm4_lite(draw)
    del fields["mlp_layer_types"]
    fields["first_k_dense_replace"] = draw.size(0, draw.num_layers - 1)
    return fields


def _deepseek2(draw: Draw) -> Fields:
    fields = {
        **_deepseek3(draw),
        "mlp_bias": draw.flag(0.3),
        "topk_method": draw.of("greedy", "group_limited_greedy"),
    }
    del fields["rope_interleave"]
    for key in ("qk_nope_head_dim", "kv_lora_rank"):  # as rows of complex numbers ask
        fields[key] += fields[key] % 2
    while fields["hidden_size"] % fields["num_attention_heads"]:  # the class asks for it
        fields["num_attention_heads"] -= 1
    fields["num_key_value_heads"] = fields["num_attention_heads"]
    return fields


GROUPED: Mapping[str, Callable[[Draw], Fields]] = {
    "deepseek_v2": _deepseek2,
    "deepseek_v3": _deepseek3,
    "dots1": _dots1,
    "ernie4_5_moe": _ernie,
    "glm4_moe": _glm4,
    "glm4_moe_lite": _glm4_lite,
    "hy_v3": _hy,
    "mimo_v2_flash": _mimo,
    "solar_open": _solar,
}
