"""GGUF metadata → the configuration that Hugging Face would have written, key by key.

A key of the model's architecture that stands in no table here is refused by name: running without it
could give wrong text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.families import ALL_FAMILIES, Family, GgufFamily

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
    metadata: Mapping[str, Any],
    vocab_size: int,
    has_head: bool,
    has_bias: bool,
    names: Collection[str] = (),
) -> dict[str, Any]:
    """The configuration in Hugging Face's keys.

    ``vocab_size`` is the number of rows of the embedding; ``has_head`` and ``has_bias`` say whether the file
    holds an output matrix of its own and biases of queries, keys and values; ``names`` are its tensors'.

    Raises:
        UnsupportedModelError: unknown architecture, key or value.
    """
    architecture = str(metadata.get("general.architecture"))
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    family, gguf = _find_family(architecture, own)
    own = {key: value if key in gguf.per_layer else _scalar(key, value) for key, value in own.items()}
    config: dict[str, Any] = {
        "model_type": family.model_types[0],
        "vocab_size": vocab_size,
        "tie_word_embeddings": not has_head,
        "hidden_act": "silu",
        **gguf.implied,
        **{gguf.keys[key]: value for key, value in own.items() if key in gguf.keys},
    }
    if family.model_types[0] == "qwen2_moe":
        config["qkv_bias"] = has_bias
    scaling = _rope_scaling(own)
    if scaling:
        config["rope_scaling"] = scaling
    if gguf.finish is not None:
        gguf.finish(own, config, names)
    _check_rest(gguf, own, config)
    return config


def _find_family(architecture: str, own: dict[str, Any]) -> tuple[Family, GgufFamily]:
    """The family that a file with these keys of its own holds.

    Raises:
        UnsupportedModelError: there is none.
    """
    found = [(f, f.gguf) for f in ALL_FAMILIES if f.gguf is not None]
    alike = [(family, gguf) for family, gguf in found if gguf.architecture == architecture]
    for family, gguf in alike:
        if gguf.is_ours is None or gguf.is_ours(own):
            return family, gguf
    known = ", ".join(sorted({gguf.architecture for _, gguf in found}))
    if architecture == "llama":
        raise UnsupportedModelError("this GGUF file is a dense Llama; EdgeMoE runs mixture-of-experts models")
    raise UnsupportedModelError(f"GGUF architecture {architecture!r} is not supported; supported: {known}")


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


def _check_rest(gguf: GgufFamily, own: dict[str, Any], config: dict[str, Any]) -> None:
    expected = {**config}
    expected.setdefault("head_dim", config.get("hidden_size", 0) // (config.get("num_attention_heads") or 1))
    for key, value in own.items():
        if key in gguf.keys or key in gguf.ignored:
            continue
        if key in gguf.checked:
            allowed = gguf.checked[key]
        elif key in _REPEATED:
            allowed = (expected.get(_REPEATED[key]),)
        elif key in _FIXED:
            allowed = _FIXED[key]
        else:
            raise UnsupportedModelError(
                f"GGUF key {gguf.architecture}.{key} is not known; running without it could give wrong text"
            )
        if value not in allowed:
            raise UnsupportedModelError(
                f"GGUF key {gguf.architecture}.{key} = {value!r} is not supported; supported: "
                + ", ".join(map(repr, allowed))
            )
