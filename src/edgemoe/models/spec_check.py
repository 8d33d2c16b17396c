"""Whether a spec can be run: sizes that fit each other and the packed formats, numbers inside their ranges.

Every spec passes here, whatever its family, before a tensor is looked at; compiled code relies on it.
"""

from __future__ import annotations

import math

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.spec import AttentionSpec, LayerSpec, ModelSpec, MoESpec

# Of one matrix, so that no product of sizes overflows in compiled code.
_MOST_VALUES = 1 << 40
# Positions of one text: a cache counts them in 32 bits.
_MOST_POSITIONS = (1 << 31) - 1


def check_spec(spec: ModelSpec) -> None:
    """Refuse what cannot be run.

    Raises:
        UnsupportedModelError: sizes that do not fit each other or the packed formats, or no experts.
    """
    if not spec.decoder_moe_layers:
        raise UnsupportedModelError("config.json: no decoder layer has experts; EdgeMoE runs sparse models")
    _require(0 <= spec.norm_eps < 1, f"the norm's epsilon {spec.norm_eps:g} is not between 0 and 1")
    _require(math.isfinite(spec.head_scale) and spec.head_scale > 0, "the head's scale is not positive")
    _require(
        1 <= spec.max_context <= _MOST_POSITIONS, f"a context of {spec.max_context} tokens cannot be counted"
    )
    _require(
        0 <= spec.start_token_id < spec.vocab_size,
        f"decoder_start_token_id {spec.start_token_id} is outside the vocabulary of {spec.vocab_size}",
    )
    _check_positions(spec)
    for layer in spec.layers:
        _check_layer(layer, spec.width)
    _check_matrix("hidden_size", spec.width, spec.vocab_size)


def _check_layer(layer: LayerSpec, width: int) -> None:
    for mixer in (layer.mixer, layer.cross):
        if isinstance(mixer, AttentionSpec):
            _check_attention(mixer)
        for name, size in () if mixer is None else mixer.row_lengths().items():
            _check_matrix(name, size, width)
    feed_forward = layer.feed_forward
    if feed_forward is None:
        return
    if not isinstance(feed_forward, MoESpec):
        _check_matrix("intermediate_size", feed_forward.width, width)
        return
    if feed_forward.beside is not None:
        _check_matrix("intermediate_size", feed_forward.beside.width, width)
    router = feed_forward.router
    _require(
        1 <= router.top_k <= router.num_experts,
        f"{router.top_k} of {router.num_experts} are more experts per token than experts, or none",
    )
    _require(router.capacity >= 0, "expert_capacity is negative")
    groups, kept = router.num_groups, router.kept_groups
    _require(
        groups >= 1 and router.num_experts % groups == 0 and 1 <= kept <= groups,
        f"{kept} of {groups} groups of {router.num_experts} experts cannot be kept",
    )
    _require(
        router.top_k <= kept * (router.num_experts // groups),
        f"{kept} of {groups} groups have fewer than the {router.top_k} experts that a token chooses",
    )
    if feed_forward.latent_width:
        _check_matrix("moe_latent_size", feed_forward.latent_width, width)
    _check_matrix("expert width", feed_forward.expert.width, width)
    if feed_forward.shared is not None:
        _check_matrix("shared expert width", feed_forward.shared.width, width)


def _check_attention(attention: AttentionSpec) -> None:
    heads, kv_heads = attention.num_heads, attention.num_kv_heads
    _require(
        kv_heads >= 1 and heads % kv_heads == 0,
        f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {kv_heads}",
    )
    _require(attention.window >= 0, f"a window of {attention.window} tokens cannot be")
    _require(
        attention.clip_qkv is None or attention.clip_qkv > 0, f"clip_qkv {attention.clip_qkv} is not positive"
    )


def _check_positions(spec: ModelSpec) -> None:
    bias = spec.position_bias
    if bias is not None:
        # A direction has half of the buckets, and half of these are for one distance each.
        _require(
            bias.num_buckets >= 4 and bias.num_buckets % 2 == 0 and bias.max_distance > bias.num_buckets // 2,
            f"{bias.num_buckets} buckets for distances up to {bias.max_distance} cannot be dealt out",
        )


def _check_matrix(name: str, size: int, num_rows: int) -> None:
    """A matrix with rows of this size, of which there are so many, can be held."""
    _require(num_rows * size <= _MOST_VALUES, f"{name}: a matrix of {num_rows} x {size} cannot be")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UnsupportedModelError(f"config.json: {otherwise}")
