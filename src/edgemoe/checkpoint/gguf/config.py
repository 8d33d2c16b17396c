"""GGUF metadata → the configuration that Hugging Face would have written, key by key.

A key of the model's architecture that stands in no table here is refused by name: running without it
could give wrong text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgemoe.checkpoint.gguf.defaults import add_defaults, read_divisors, read_scaling
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.models.families import ALL_FAMILIES, Family, GgufFamily
from edgemoe.source_ref import Shape

# Keys that only repeat what follows from others: suffix → Hugging Face key it must agree with.
_REPEATED = {
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
    "expert_shared_feed_forward_length": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "interleave_moe_layer_step": (0, 1),
    "moe_every_n_layers": (0, 1),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "router_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "pooling_type": (0,),
    "rope.scaling.finetuned": (True, False),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0),
}
# As both of these, of keys that no file of these architectures needs: llama.cpp reads them for every one, or
# writers put them into every file. A value for each layer may stand there too.
_SAME = {
    "attention.key_length_swa": "head_dim",
    "attention.value_length_swa": "head_dim",
    "rope.dimension_count_swa": "rope.dimension_count",
    "rope.freq_base_swa": "rope_theta",
    "embedding_length_out": "hidden_size",
    "hidden_activation": "hidden_act",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.output_scale": (0.0, 1.0),
    "attention.value_scale": (0.0, 1.0),
    "attention.temperature_length": (0,),
    "attention.temperature_scale": (0.0,),
    "attention.shared_kv_layers": (0,),
    "embedding_length_per_layer_input": (0,),
    "expert_latent_length": (0,),
    "moe_latent_size": (0,),
    "n_deepstack_layers": (0,),
    "rope.scaling.alpha": (0.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "swiglu_clamp_exp": (0.0,),
    "swiglu_clamp_shexp": (0.0,),
    "use_parallel_residual": (False,),
}
# Of norms that take the mean away, which no family here has unless its keys say so; some models' settings
# have a value for both kinds.
_UNREAD = ("attention.layer_norm_epsilon",)
# Keys that say how the tensors were laid out before they were converted, and of how many tokens: those that
# were added since count too.
_HISTORY = ("tensor_data_layout", "source.hf_repository", "vocab_size")
_GROUPS = ("expert_group_count", "expert_group_used_count")
_EMBEDDING = "token_embd.weight"
# Without these llama.cpp refuses a file as well.
_REQUIRED = (
    "embedding_length",
    "block_count",
    "context_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
    "expert_count",
    "expert_used_count",
)
_EXPERT_STACK = re.compile(r"blk\.\d+\.ffn_(gate|up|down|gate_up)_exps\.weight")
# No model has so many experts in a layer; one tensor for each cannot be more than there are tensors.
_MAX_STACKED = 1 << 16


def read_config(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    divisors: Mapping[str, list[float]] | None = None,
) -> dict[str, Any]:
    """The configuration in Hugging Face's keys.

    ``shapes`` are those of the tensors, by their names in the file; ``divisors`` the values of those that
    say how pairs of a head rotate (``ROTATION_TENSORS``). What the metadata leave unsaid is what llama.cpp
    takes for the architecture, not what a class of Hugging Face would.

    Raises:
        UnsupportedModelError: unknown architecture, key or value.
        CheckpointError: a key is missing, or the tensors are other than the keys say.
    """
    architecture = str(metadata.get("general.architecture"))
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    if not own.get("expert_group_count"):  # 0 says that there are no groups
        own = {key: value for key, value in own.items() if key not in _GROUPS}
    own.setdefault("vocab_size", len(metadata.get("tokenizer.ggml.tokens") or ()))
    family, gguf = _find_family(architecture, own)
    is_one = {key: key not in gguf.per_layer and takes_key(gguf, key) for key in own}
    own = {key: _scalar(key, value) if is_one[key] else value for key, value in own.items()}
    _check_required(gguf, own)
    config: dict[str, Any] = {
        "model_type": family.model_types[0],
        "vocab_size": shapes[_EMBEDDING][0],
        "tie_word_embeddings": "output.weight" not in shapes,
        "hidden_act": "silu",
        **gguf.implied,
        **{gguf.keys[key]: value for key, value in own.items() if key in gguf.keys},
    }
    if family.model_types[0] == "qwen2_moe":
        config["qkv_bias"] = "blk.0.attn_q.bias" in shapes
    add_defaults(gguf, own, config, shapes)
    scaling = read_divisors(own, divisors or {}) if "rope.freq_base" in gguf.keys else {}
    scaling = scaling or read_scaling(own)
    # Said aloud, because the classes of some families scale where nothing is said.
    if scaling or "rope.freq_base" in gguf.keys:
        config["rope_scaling"] = scaling or {"rope_type": "default"}
    _finish(gguf, own, config, shapes)
    _check_rest(gguf, own, config)
    _check_counts(gguf, own, shapes)
    return config


def _finish(
    gguf: GgufFamily, own: dict[str, Any], config: dict[str, Any], shapes: Mapping[str, Shape]
) -> None:
    """What a family does beyond renaming; files may lack what it asks for."""
    if gguf.finish is None:
        return
    if isinstance(config.get("head_dim"), int) and "rope.dimension_count" in gguf.ignored:
        own.setdefault("rope.dimension_count", config["head_dim"])
    try:
        gguf.finish(own, config, shapes.keys())
    except CheckpointError:
        raise
    except KeyError as error:
        raise _missing(gguf, error.args[0]) from None
    except (TypeError, ValueError, ArithmeticError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"a GGUF key of {gguf.architecture} has a value that cannot be: {error}; fetch the file again"
        ) from error


def _missing(gguf: GgufFamily, key: str) -> CheckpointError:
    return CheckpointError(f"GGUF key {gguf.architecture}.{key} is missing; fetch the file again")


def takes_key(gguf: GgufFamily, key: str) -> bool:
    """Whether files of a family may have a key, which stands without the architecture's name."""
    known = (*gguf.keys, *gguf.ignored, *gguf.checked, *_REPEATED, *_FIXED, *_HISTORY)
    return key in known or key.startswith("rope.scaling.")


def _check_required(gguf: GgufFamily, own: Mapping[str, Any]) -> None:
    for key in _REQUIRED:
        if key in gguf.keys and own.get(key) is None:
            raise _missing(gguf, key)


def _check_counts(gguf: GgufFamily, own: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Numbers of layers and experts are those of the tensors, before anything is made for each of them."""
    num_layers, num_experts = own.get("block_count"), own.get("expert_count")
    if isinstance(num_layers, int) and num_layers > len(shapes):
        raise CheckpointError(f"the file says {num_layers} layers, and has {len(shapes)} tensors")
    for name, shape in shapes.items():
        if _EXPERT_STACK.fullmatch(name) and num_experts not in (None, shape[0]):
            raise CheckpointError(f"tensor {name} holds {shape[0]} experts, the file says {num_experts}")
    if isinstance(num_experts, int) and num_experts > max(len(shapes), _MAX_STACKED):
        raise CheckpointError(f"the file says {num_experts} experts, more than any model has")


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
    letters = _letters(architecture)
    alike_name = next((g.architecture for _, g in found if _letters(g.architecture) == letters), None)
    if alike_name is not None:
        raise UnsupportedModelError(
            f"GGUF architecture {architecture!r} is another program's {alike_name!r}, with names of its own;"
            " get the model as llama.cpp's converter writes it"
        )
    raise UnsupportedModelError(f"GGUF architecture {architecture!r} is not supported; supported: {known}")


def _letters(name: str) -> str:
    return "".join(c for c in name if c.isalnum())


def _scalar(key: str, value: Any) -> Any:
    """Some writers repeat a value for every layer."""
    if not isinstance(value, list):
        return value
    if not value or any(entry != value[0] for entry in value):
        raise UnsupportedModelError(f"GGUF key {key} differs from layer to layer, which no family here does")
    return value[0]


def _check_rest(gguf: GgufFamily, own: dict[str, Any], config: dict[str, Any]) -> None:
    expected = {**config}
    expected.setdefault("head_dim", config.get("hidden_size", 0) // (config.get("num_attention_heads") or 1))
    expected["rope.dimension_count"] = own.get("rope.dimension_count", expected["head_dim"])
    for key, value in own.items():
        if key in (*gguf.keys, *gguf.ignored, *_HISTORY, *_UNREAD):
            continue
        if key in gguf.checked:
            allowed = gguf.checked[key]
        elif key in _REPEATED:
            allowed = (expected.get(_REPEATED[key]),)
        elif key in _FIXED:
            allowed = _FIXED[key]
        elif key in _SAME:
            allowed = (expected.get(_SAME[key]),)
        elif key in _NEUTRAL:
            allowed = _NEUTRAL[key]
        else:
            raise UnsupportedModelError(
                f"GGUF key {gguf.architecture}.{key} is not known; running without it could give wrong text"
            )
        if any(entry not in allowed for entry in (value if isinstance(value, list) else [value])):
            raise UnsupportedModelError(
                f"GGUF key {gguf.architecture}.{key} = {value!r} is not supported; supported: "
                + ", ".join(map(repr, allowed))
            )
