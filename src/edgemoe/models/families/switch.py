"""Switch Transformers (arXiv 2101.03961): T5's encoder and decoder; a token uses one expert in some layers.

The rules are those of the implementation in transformers 5.23.
"""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_activation
from edgemoe.models.families.switch_names import SwitchNames
from edgemoe.models.spec import (
    AttentionSpec,
    ExpertSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    PositionBiasSpec,
    RouterSpec,
)

# Relative positions have no end; far beyond what checkpoints were trained with nobody should rely on them.
MAX_CONTEXT = 8192
# Of training, of bookkeeping, or the default of another tool that wrote the file.
_HARMLESS = (
    *("dropout_rate", "initializer_factor", "router_z_loss_coef", "add_router_probs", "router_type"),
    *("n_positions", "num_selected_experts", "task_specific_params", "is_decoder", "add_cross_attention"),
    # Padding never occurs: one text is run at a time.
    "router_ignore_padding_tokens",
)


def read_switch(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``switch_transformers`` configuration; the encoder's layers come first."""
    for key in _HARMLESS:
        reader.optional(key, None)
    reader.refuse("is_encoder_decoder", (True,), "the family has an encoder")
    reader.refuse("router_dtype", ("float32",), "routers run in single precision")
    reader.refuse("feed_forward_proj", ("relu", "gelu", "silu"), "experts have no gate")
    reader.refuse("is_gated_act", (False,), "experts have no gate")
    width = reader.require_size("d_model", "hidden_size")
    is_tied = reader.flag("tie_word_embeddings", True)
    encoder = _layers(reader, "encoder", reader.require_size("num_layers"))
    num_decoder_layers = reader.size("num_decoder_layers", len(encoder))
    decoder = _layers(reader, "decoder", num_decoder_layers)
    return ModelSpec(
        family=str(reader.require("model_type")),
        hidden_size=width,
        vocab_size=reader.require_size("vocab_size"),
        layers=(*encoder, *decoder),
        norm_eps=reader.number("layer_norm_epsilon", 1e-6),
        has_tied_head=is_tied,
        max_context=MAX_CONTEXT,
        position_bias=PositionBiasSpec(
            reader.size("relative_attention_num_buckets", 32),
            reader.size("relative_attention_max_distance", 128),
        ),
        num_encoder_layers=len(encoder),
        head_scale=width**-0.5 if is_tied else 1.0,
        start_token_id=reader.size(
            "decoder_start_token_id", reader.size("pad_token_id", 0, at_least=0), at_least=0
        ),
    )


def _layers(reader: ConfigReader, stack: str, count: int) -> tuple[LayerSpec, ...]:
    """The layers of "encoder" or "decoder"."""
    heads = reader.require_size("num_heads", "num_attention_heads")
    attention = AttentionSpec(heads, heads, reader.require_size("d_kv"), score_scale=1.0)
    activation = read_activation(reader, "dense_act_fn", "relu")
    # transformers drops tokens of an expert that is full: in an encoder's pass, and in a decoder's over a
    # whole answer, which generating never makes. Here a decoder drops none, so that both agree.
    capacity = reader.size("expert_capacity", 64)
    experts = reader.require_size("num_experts")
    inner = reader.require_size("d_ff")
    router = RouterSpec(
        experts,
        1,
        "softmax",
        has_bias=reader.flag("router_bias", False),
        capacity=capacity if stack == "encoder" else 0,
    )
    moe = MoESpec(router, ExpertSpec(inner, activation, is_gated=False))
    dense = MLPSpec(inner, activation, is_gated=False)
    num_sparse = reader.size(f"num_sparse_{stack}_layers", 3, at_least=0)
    step = reader.size(f"{stack}_sparse_step", count // num_sparse if num_sparse > 0 else count, at_least=0)
    cross = attention if stack == "decoder" else None
    return tuple(
        LayerSpec(attention, moe if _is_sparse(index, step) else dense, cross) for index in range(count)
    )


def _is_sparse(index: int, step: int) -> bool:
    return step > 0 and (step == 1 or index % step == 1)


FAMILY = Family(
    "Switch Transformers",
    ("switch_transformers",),
    read_switch,
    SwitchNames(),
    has_encoder=True,
    defaults={
        "vocab_size": 32128,
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 12,
        "num_decoder_layers": 12,
        "num_heads": 12,
        "num_experts": 8,
    },
)
