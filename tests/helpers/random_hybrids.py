"""Random configurations of families whose layers keep states of fixed size; see random_configs.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from helpers.random_fields import (
    Draw,
    Fields,
    beside_vision,
    common,
    experts,
    grouped,
    heads,
    latent,
    rope,
    rotated,
    widths,
)

# Older names, which count before the newer ones.
_NEMOTRON_NAMES = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_chunk_size": "chunk_size",
}
_LINEAR, _FULL = "linear_attention", "full_attention"
_OLD = ("mamba", "attention")  # what older files call them


def _delta(draw: Draw) -> Fields:
    """Gated delta nets and gated attention."""
    key_heads = draw.of(1, 2, 3, 4)
    fields = {
        **common(draw),
        **heads(draw),
        **experts(draw, "num_experts"),
        **draw.activation(),
        "moe_intermediate_size": draw.size(5, 72),
        "shared_expert_intermediate_size": draw.size(5, 72),
        "attention_bias": draw.flag(0.3),
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": key_heads * draw.of(1, 2, 3),
        "linear_key_head_dim": draw.size(3, 32),
        "linear_value_head_dim": draw.size(3, 32),
        "linear_conv_kernel_dim": draw.size(1, 6),
        **draw.of(
            {},
            {"layer_types": draw.kinds(*draw.of((_LINEAR, _FULL), _OLD))},
            {"full_attention_interval": draw.of(2, 3)},
        ),
    }
    fields.setdefault("head_dim", 16)
    return rotated(draw, fields, partial=True)


def _qwen3_5(draw: Draw) -> Fields:
    return beside_vision(_delta(draw))


def _qwen3_next(draw: Draw) -> Fields:
    step = draw.of(1, 1, 2)
    draw.num_layers = max(draw.num_layers, step)
    fields = {
        **_delta(draw),
        "intermediate_size": draw.size(5, 96),
        "norm_topk_prob": draw.flag(),
        "decoder_sparse_step": step,
    }
    sparse = [layer for layer in range(draw.num_layers) if (layer + 1) % step == 0]
    return fields | draw.maybe({"mlp_only_layers": sparse[:-1][:1]}, 0.3)


def _lfm2(draw: Draw) -> Fields:
    return rotated(
        draw,
        {
            **{key: value for key, value in common(draw).items() if key != "rms_norm_eps"},
            **heads(draw),
            **widths(draw),
            **experts(draw, "num_experts"),
            "norm_eps": draw.of(1e-6, 1e-5, 1e-3),
            "layer_types": draw.kinds("conv", _FULL),
            "num_dense_layers": draw.size(0, draw.num_layers - 1),
            "conv_bias": draw.flag(),
            "conv_L_cache": draw.size(1, 6),
            "use_expert_bias": draw.flag(0.7),
            "norm_topk_prob": draw.flag(),
            "routed_scaling_factor": draw.of(1.0, draw.number(0.3, 3.0)),
        },
    )


def _granite_hybrid(draw: Draw) -> Fields:
    expand, num_groups = draw.of(1, 2, 3), draw.of(1, 1, 2)
    inner = expand * draw.width
    num_heads = draw.of(*(n for n in (2, 4, 8) if inner % n == 0))
    fields = {
        **common(draw),
        **heads(draw),
        **experts(draw, "num_local_experts"),
        **draw.activation(),
        "intermediate_size": draw.size(5, 72),
        "shared_intermediate_size": draw.size(5, 96),
        "attention_bias": draw.flag(0.3),
        "attention_multiplier": draw.number(0.05, 0.6),
        **draw.maybe({"embedding_multiplier": draw.number(0.3, 12)}),
        **draw.maybe({"residual_multiplier": draw.number(0.2, 1.3)}),
        **draw.maybe({"logits_scaling": draw.number(0.3, 16)}),
        **draw.maybe({"layer_types": draw.kinds(*draw.of((_LINEAR, _FULL), _OLD))}, 0.9),
        "position_embedding_type": draw.of(None, "nope", "rope", "rope"),
        "mamba_expand": expand,
        "mamba_n_heads": num_heads,
        "mamba_n_groups": num_groups,
        "mamba_d_state": draw.size(3, 40),
        "mamba_d_conv": draw.size(1, 5),
        "mamba_chunk_size": draw.of(8, 16, 64),
        "mamba_conv_bias": draw.flag(0.7),
        "mamba_proj_bias": draw.flag(0.3),
        **draw.maybe({"mamba_d_head": inner // num_heads}),
        **draw.maybe({"time_step_limit": [draw.number(0.1, 0.4), draw.number(0.5, 1.5)]}, 0.3),
    }
    fields = rotated(draw, fields)
    if "time_step_limit" in fields:  # which transformers forgets in single steps
        fields["max_position_embeddings"] = 128
    return fields


def _nemotron(draw: Draw) -> Fields:
    num_groups = draw.of(1, 1, 2, 3)
    kinds = draw.kinds(_LINEAR, _FULL, "moe", "moe", "mlp", count=draw.size(2, 7))
    kinds[draw.rng.randrange(len(kinds))] = "moe"
    fields = {
        **common(draw),
        **heads(draw),
        **widths(draw),
        **grouped(draw, has_shared=False),
        **draw.activation("mlp_hidden_act"),
        **draw.activation("mamba_hidden_act"),
        "layers_block_type": kinds,
        "layer_norm_epsilon": draw.of(1e-6, 1e-5, 1e-3),
        "mamba_num_heads": num_groups * draw.of(1, 2, 3),
        "mamba_head_dim": draw.size(3, 32),
        "n_groups": num_groups,
        "ssm_state_size": draw.size(3, 40),
        "conv_kernel": draw.size(1, 5),
        "chunk_size": draw.of(8, 16, 64),
        "use_conv_bias": draw.flag(0.7),
        "use_bias": draw.flag(0.3),
        "mlp_bias": draw.flag(0.3),
        "attention_bias": draw.flag(0.3),
        "residual_in_fp32": draw.flag(),
        "moe_shared_expert_intermediate_size": draw.size(5, 96),
        "moe_latent_size": draw.of(None, draw.size(5, 64)),
        # Of several tokens transformers lets no step be smaller than this, of one token any.
        "time_step_min": 1e-30,
    }
    # Nothing rotates, so that heads may be of any size.
    fields["head_dim"] = draw.of(fields.get("head_dim", 16), draw.size(3, 33))
    if draw.flag(0.3):
        letters = {_LINEAR: "M", _FULL: "*", "moe": "E", "mlp": "-"}
        fields["hybrid_override_pattern"] = "".join(map(letters.get, fields.pop("layers_block_type")))
    for old, new in _NEMOTRON_NAMES.items():
        if draw.flag(0.15):
            fields[old] = fields.pop(new)
    for key in ("num_hidden_layers", "rms_norm_eps"):
        del fields[key]
    return fields


def _kimi(draw: Draw) -> Fields:
    kinds = draw.kinds(_LINEAR, _FULL)
    table = {
        "head_dim": draw.size(3, 36),
        "num_heads": draw.of(1, 2, 3, 5),
        "short_conv_kernel_size": draw.size(1, 6),
        "full_attn_layers": [layer + 1 for layer, kind in enumerate(kinds) if kind == _FULL],
        "kda_layers": [layer + 1 for layer, kind in enumerate(kinds) if kind == _LINEAR],
    }
    own = {
        "linear_head_dim": table["head_dim"],
        "linear_num_heads": table["num_heads"],
        "linear_conv_kernel_dim": table["short_conv_kernel_size"],
        **draw.maybe({"layer_types": kinds}, 0.8),
    }
    dense = draw.of(
        {"mlp_layer_types": draw.sparse_kinds()}, {"first_k_dense_replace": draw.size(0, draw.num_layers - 1)}
    )
    return {
        **common(draw),
        **latent(draw),
        **widths(draw),
        **grouped(draw, "num_local_experts"),
        **draw.activation(),
        **draw.of(own, {"linear_attn_config": table}),
        **dense,
    }


def _bailing(draw: Draw) -> Fields:
    fields = {
        **common(draw),
        **latent(draw, has_query_rank=False),
        **widths(draw),
        **grouped(draw, "num_local_experts"),
        **draw.activation(),
        "head_dim": draw.size(3, 36),
        "short_conv_kernel_size": draw.size(1, 6),
        "kda_safe_gate": draw.flag(),
        "kda_lower_bound": draw.of(-5.0, -draw.number(0.5, 6.0)),
        **draw.of({"layer_types": draw.kinds(_LINEAR, _FULL)}, {"layer_group_size": draw.size(1, 4)}),
        **draw.of(
            {"mlp_layer_types": draw.sparse_kinds()},
            {"first_k_dense_replace": draw.size(0, draw.num_layers - 1)},
        ),
    }
    if draw.flag(0.2):
        return fields  # rotated by the family's own base
    kinds = ("linear", "dynamic", "llama3", "yarn", "longrope")
    return {**fields, "rope_parameters": rope(draw, fields["qk_rope_head_dim"], kinds)}


HYBRIDS: Mapping[str, Callable[[Draw], Fields]] = {
    "bailing_hybrid": _bailing,
    "granitemoehybrid": _granite_hybrid,
    "kimi_linear": _kimi,
    "lfm2_moe": _lfm2,
    "nemotron_h": _nemotron,
    "qwen3_5_moe": _qwen3_5,
    "qwen3_5_moe_text": _delta,
    "qwen3_next": _qwen3_next,
}
