"""GGUF metadata → the configuration that Hugging Face would have written, key by key.

A key of the model's architecture that stands in no table here is refused by name: running without it
could give wrong text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemoe.errors import UnsupportedModelError

_SHARED = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}
_QWEN = {
    **_SHARED,
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_weights_norm": "norm_topk_prob",
}
# Architecture → model_type, GGUF key → Hugging Face key, and what the architecture implies.
_ARCHITECTURES: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "qwen3moe": ("qwen3_moe", _QWEN, {"norm_topk_prob": True}),
    "qwen2moe": (
        "qwen2_moe",
        {**_QWEN, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
        {"norm_topk_prob": False},
    ),
    "olmoe": (
        "olmoe",
        {
            **_SHARED,
            "feed_forward_length": "intermediate_size",
            "attention.clamp_kqv": "clip_qkv",
            "expert_weights_norm": "norm_topk_prob",
        },
        {"norm_topk_prob": False},
    ),
    "llama": (
        "mixtral",
        {
            **_SHARED,
            "feed_forward_length": "intermediate_size",
            "attention.key_length": "head_dim",
            "attention.sliding_window": "sliding_window",
        },
        {},
    ),
}
# Keys that only repeat what follows from others: suffix → Hugging Face key it must agree with.
_REPEATED = {
    "vocab_size": "vocab_size",
    "rope.dimension_count": "head_dim",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    # Some writers give every expert's width, where the family has but one width.
    "expert_feed_forward_length": "intermediate_size",
}
# Keys with the one value that we compute; llama.cpp's gating function 1 is the softmax, 0 "not said".
_FIXED: dict[str, tuple[Any, ...]] = {
    "expert_gating_func": (0, 1),
    "expert_weights_scale": (0.0, 1.0),
    "expert_shared_count": (0, 1),
    "leading_dense_block_count": (0,),
    "rope.scaling.finetuned": (True, False),
    "rope.scaling.attn_factor": (1.0,),
}
_ROPE = {"factor": "factor", "original_context_length": "original_max_position_embeddings"}


def read_config(
    metadata: Mapping[str, Any], vocab_size: int, has_head: bool, has_bias: bool
) -> dict[str, Any]:
    """The configuration in Hugging Face's keys.

    ``vocab_size`` is the number of rows of the embedding; ``has_head`` and ``has_bias`` say whether the file
    holds an output matrix of its own and biases of queries, keys and values.

    Raises:
        UnsupportedModelError: unknown architecture, key or value.
    """
    architecture = str(metadata.get("general.architecture"))
    if architecture not in _ARCHITECTURES:
        raise UnsupportedModelError(
            f"GGUF architecture {architecture!r} is not supported; supported: {', '.join(_ARCHITECTURES)}"
        )
    model_type, names, implied = _ARCHITECTURES[architecture]
    own = {
        key.removeprefix(f"{architecture}."): _scalar(key, value)
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    if architecture == "llama" and not own.get("expert_count"):
        raise UnsupportedModelError("this GGUF file is a dense Llama; EdgeMoE runs mixture-of-experts models")
    config: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": vocab_size,
        "tie_word_embeddings": not has_head,
        "hidden_act": "silu",
        **implied,
        **{names[key]: value for key, value in own.items() if key in names},
    }
    if model_type == "qwen2_moe":
        config["qkv_bias"] = has_bias
    scaling = _rope_scaling(own)
    if scaling:
        config["rope_scaling"] = scaling
    _check_rest(architecture, own, config, set(names))
    return config


def _scalar(key: str, value: Any) -> Any:
    """Some writers repeat a value for every layer."""
    if not isinstance(value, list):
        return value
    if not value or any(entry != value[0] for entry in value):
        raise UnsupportedModelError(f"GGUF key {key} differs from layer to layer, which no family here does")
    return value[0]


def _rope_scaling(own: dict[str, Any]) -> dict[str, Any]:
    kind = own.pop("rope.scaling.type", "none")
    found = {new: own.pop(f"rope.scaling.{old}", None) for old, new in _ROPE.items()}
    if kind == "none":
        return {}
    return {"rope_type": kind, **{key: value for key, value in found.items() if value is not None}}


def _check_rest(architecture: str, own: dict[str, Any], config: dict[str, Any], known: set[str]) -> None:
    expected = {**config}
    expected.setdefault("head_dim", config.get("hidden_size", 0) // (config.get("num_attention_heads") or 1))
    for key, value in own.items():
        if key in known:
            continue
        if key in _REPEATED:
            allowed: tuple[Any, ...] = (expected.get(_REPEATED[key]),)
        elif key in _FIXED:
            allowed = _FIXED[key]
        else:
            raise UnsupportedModelError(
                f"GGUF key {architecture}.{key} is not known; running without it could give wrong text"
            )
        if value not in allowed:
            raise UnsupportedModelError(
                f"GGUF key {architecture}.{key} = {value!r} is not supported; supported: "
                + ", ".join(map(repr, allowed))
            )
