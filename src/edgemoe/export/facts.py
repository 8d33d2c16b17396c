"""The facts of a model under the names that configurations of Hugging Face and GGUF files have for them."""

from __future__ import annotations

from typing import Any

from edgemoe.models import ModelSpec
from edgemoe.models.families import GgufFamily
from edgemoe.models.mixers.latent import LatentSpec
from edgemoe.models.spec import AttentionSpec, MLPSpec, RopeSpec

# YaRN's factor of queries and keys is a tenth of this times the logarithm of the stretch.
_YARN_TENTH = 0.1
# What a file says of how the rotation is stretched, by the names of a configuration.
_STRETCH = {
    "factor": "factor",
    "original_max_position_embeddings": "original_context_length",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}
_NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_SHARED_WIDTH = (
    *("shared_expert_intermediate_size", "shared_intermediate_size"),
    "moe_shared_expert_intermediate_size",
)
_DENSE_LAYERS = ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")
_COUNTS = ("original_context_length",)


def configuration_facts(spec: ModelSpec) -> dict[str, Any]:
    """Values by Hugging Face's names, several where families differ; None where there is nothing to say."""
    moe = spec.moe(spec.moe_layers[0])
    router, shared, width = moe.router, moe.shared, moe.expert.width
    rope = _rope(spec)
    facts: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": len(spec.layers),
        "rope_theta": None if rope is None else rope.theta,
        "rotary_dim": None if rope is None else rope.rotary_dim,
        "max_position_embeddings": spec.max_context if rope is None else rope.trained_context,
        "norm_topk_prob": router.renormalize,
        "n_group": router.num_groups,
        "topk_group": router.kept_groups,
        "moe_intermediate_size": width,
        "embedding_multiplier": spec.embed_scale,
        "residual_multiplier": spec.layers[0].residual.scale,
        "logits_scaling": 1 / spec.head_scale,
    }
    facts |= dict.fromkeys(("routed_scaling_factor", "router_scaling_factor"), router.scale)
    # Dense layers come first, where there are any.
    facts |= dict.fromkeys(_DENSE_LAYERS, spec.moe_layers[0])
    facts |= dict.fromkeys(("rms_norm_eps", "norm_eps", "layernorm_epsilon"), spec.norm_eps)
    facts |= dict.fromkeys(_NUM_EXPERTS, router.num_experts)
    facts |= dict.fromkeys(("num_experts_per_tok", "moe_k", "top_k_experts"), router.top_k)
    if shared is not None:
        facts |= dict.fromkeys(("n_shared_experts", "num_shared_experts"), shared.width // width)
        facts |= dict.fromkeys(_SHARED_WIDTH, shared.width)
    dense = next((s.feed_forward.width for s in spec.layers if isinstance(s.feed_forward, MLPSpec)), None)
    return {**facts, "intermediate_size": dense, **_of_attention(spec)}


def _of_attention(spec: ModelSpec) -> dict[str, Any]:
    for layer in spec.layers:
        match layer.mixer:
            case AttentionSpec() as attention:
                windows = [s.mixer.window for s in spec.layers if isinstance(s.mixer, AttentionSpec)]
                return {
                    "num_attention_heads": attention.num_heads,
                    "num_key_value_heads": attention.num_kv_heads,
                    "head_dim": attention.head_dim,
                    "sliding_window": max(windows) or None,
                    "clip_qkv": attention.clip_qkv,
                    "attention_multiplier": attention.score_scale,
                }
            case LatentSpec() as latent:
                return {
                    "num_attention_heads": latent.num_heads,
                    "q_lora_rank": latent.query_rank or None,
                    "kv_lora_rank": latent.latent_dim,
                }
    return {}


def file_facts(spec: ModelSpec, gguf: GgufFamily) -> dict[str, Any]:
    """Values by GGUF's names that follow from several facts, or that no configuration has."""
    moe = spec.moe(spec.moe_layers[0])
    expert, shared = moe.expert, moe.shared
    facts: dict[str, Any] = {"vocab_size": spec.vocab_size, "expert_feed_forward_length": expert.width}
    if "expert_weights_norm" in (*gguf.ignored, *gguf.checked):
        facts["expert_weights_norm"] = moe.router.renormalize
    if shared is not None:
        counts = {"feed_forward_length": shared.width, "count": shared.width // expert.width}
        facts |= {f"expert_shared_{k}": n for k, n in counts.items() if f"expert_shared_{k}" in gguf.ignored}
    rope = _rope(spec)
    if rope is not None:
        # Pairs take turns on the three axes of an image, on which the positions of a text are the same; the
        # fourth has none.
        sections = [(rope.rotary_dim // 2 + 2 - axis) // 3 for axis in range(3)] + [0]
        facts |= {"rope.dimension_count": rope.rotary_dim, "rope.dimension_sections": sections}
        facts |= {"n_deepstack_layers": 0, **_stretch(rope)}
    mixer = next((s.mixer for s in spec.layers if isinstance(s.mixer, AttentionSpec | LatentSpec)), None)
    if isinstance(mixer, AttentionSpec):
        facts |= dict.fromkeys(("attention.key_length", "attention.value_length"), mixer.head_dim)
    elif mixer is not None:
        facts |= {
            "attention.head_count_kv": 1,
            "attention.key_length": mixer.key_dim,
            "attention.value_length": mixer.latent_dim,
            "attention.key_length_mla": mixer.plain_dim + mixer.rotary_dim,
            "attention.value_length_mla": mixer.value_dim,
        }
    return facts


def _stretch(rope: RopeSpec) -> dict[str, Any]:
    """How the rotation is stretched, where files can say it."""
    if rope.kind not in ("linear", "yarn"):
        return {}
    found: dict[str, Any] = {"rope.scaling.type": rope.kind}
    for name, key in _STRETCH.items():
        if name in rope.scaling:
            value = rope.scaling[name]
            found[f"rope.scaling.{key}"] = int(value) if key in _COUNTS else value
    if rope.scaling.get("mscale_all_dim"):
        found["rope.scaling.yarn_log_multiplier"] = _YARN_TENTH * rope.scaling["mscale_all_dim"]
    return found


def _rope(spec: ModelSpec) -> RopeSpec | None:
    return next((layer.rope for layer in spec.layers if layer.rope is not None), None)
