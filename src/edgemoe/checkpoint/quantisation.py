"""Which method a checkpoint was quantised with, by its configuration, and the matrices that it coded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgemoe.checkpoint.by_input import find_auto_round, find_awq, find_gptq
from edgemoe.checkpoint.byte_codes import USUAL_BLOCK, find_byte_coded
from edgemoe.checkpoint.coded import CodedTensor, ReadStored
from edgemoe.checkpoint.mxfp4 import find_mxfp4
from edgemoe.checkpoint.nvfp4 import find_nvfp4
from edgemoe.checkpoint.packed_int import find_packed
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError

_KEY = "quantization_config"
_MLX_KEY = "quantization"
# Types of weights that nothing has coded.
_WHOLE = ("F64", "F32", "F16", "BF16")
# Methods that are read; others stay in the configuration, and are refused by name where that is read.
METHODS = ("fp8", "gptq", "awq", "auto-round", "compressed-tensors", "mxfp4", "mxfp8", "modelopt")
_COMPRESSED = (
    *("pack-quantized", "float-quantized", "int-quantized", "naive-quantized", "nvfp4-pack-quantized"),
    *("mxfp4-pack-quantized", "mxfp8-quantized", "dense", None),
)
# Rotations that are in the stored weights.
_FUSED = ("weight_input", "weight_output")
# Formats of single groups stand with these.
_MIXED = "mixed-precision"
# Algorithms of modelopt whose tensors are FP8, MXFP8 or NVFP4 with scales and nothing else; layers may
# differ.
_MODELOPT = (
    *("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8", "NVFP4", "W4A16_NVFP4", "W4A8_NVFP4_FP8"),
    "MIXED_PRECISION",
)


def without_quantisation(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """The configuration as that of the model before it was quantised, if its method is read, or none of
    the stored ``tensors`` is: programs that merge adapters leave the settings of the training.
    """
    found = dict(config)
    is_whole = _is_whole(tensors)
    if _method(config) not in METHODS and not is_whole:
        return found
    keys = (_KEY, _MLX_KEY) if is_whole else (_KEY,)
    for key in keys:
        found.pop(key, None)
    text = found.get("text_config")
    if isinstance(text, Mapping):
        found["text_config"] = {key: value for key, value in text.items() if key not in keys}
    return found


def idle_quantisation(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str | None:
    """What to say of a configuration that quantises, where all stored tensors are whole numbers."""
    settings = _settings(config) or config.get(_MLX_KEY)
    if not settings or not _is_whole(tensors):
        return None
    method = _method(config)
    by = f" by {method}" if method else ""
    return f"config.json says that weights are quantised{by}, and none is: they are used as they are"


def _is_whole(tensors: Mapping[str, TensorInfo]) -> bool:
    return all(info.dtype in _WHOLE for info in tensors.values())


def find_coded(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Mapping[str, CodedTensor]:
    """The coded matrices of a checkpoint by their names; FP8 ones also where no configuration says so.

    Raises:
        CheckpointError: a form of the method that is not read, or parts that do not fit each other.
    """
    settings = _settings(config)
    method = _method(config)
    if method == "gptq":
        return find_gptq(tensors, settings)
    if method == "awq":
        return find_awq(tensors, settings)
    if method == "auto-round":
        return find_auto_round(tensors, settings)
    if method == "modelopt":
        _check_modelopt(settings)
    coded: dict[str, CodedTensor] = {}
    if method == "compressed-tensors":
        _check_compressed(settings)
        coded.update(find_packed(tensors, settings))
    coded.update(find_mxfp4(tensors))
    coded.update(find_nvfp4(tensors))
    parts = {part for tensor in coded.values() for part in tensor.parts}
    left = {name: info for name, info in tensors.items() if name not in parts}
    coded.update(find_byte_coded(left, _blocks(settings)))
    return coded


def modelopt_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What modelopt's hf_quant_config.json says, as a ``quantization_config``."""
    found = settings.get("quantization")
    if not isinstance(found, Mapping):
        raise CheckpointError("hf_quant_config.json: has no section 'quantization'; fetch it again")
    return {**found, "quant_method": "modelopt"}


def _check_compressed(settings: Mapping[str, Any]) -> None:
    """Refuse forms of compressed-tensors that are not read, and models that turn activations as they run."""
    online = sorted(set(_transformed(settings)) - set(_FUSED))
    if online:
        raise CheckpointError(
            f"compressed-tensors transforms {', '.join(online)} while the model runs, which is not done here;"
            " convert the model it was made from"
        )
    format, groups = settings.get("format"), settings.get("config_groups")
    found = [format]
    if format == _MIXED and isinstance(groups, Mapping):
        found = [group.get("format") for group in groups.values() if isinstance(group, Mapping)]
    unread = next((name for name in found if name not in _COMPRESSED), None)
    if unread is not None:
        raise CheckpointError(
            f"compressed-tensors of format {unread!r} is not read; convert the model it was made from"
        )


def _transformed(settings: Mapping[str, Any]) -> Iterator[str]:
    """What compressed-tensors multiplies by rotations, by its names of the places."""
    transforms = settings.get("transform_config")
    groups = transforms.get("config_groups") if isinstance(transforms, Mapping) else None
    for scheme in groups.values() if isinstance(groups, Mapping) else ():
        for place in (scheme.get("apply") or ()) if isinstance(scheme, Mapping) else ():
            yield str(place.get("location")) if isinstance(place, Mapping) else str(place)


def _check_modelopt(settings: Mapping[str, Any]) -> None:
    """Refuse algorithms of modelopt that are not read."""
    layers = settings.get("quantized_layers")
    named = [settings.get("quant_algo")]
    if isinstance(layers, Mapping):
        named += [layer.get("quant_algo") for layer in layers.values() if isinstance(layer, Mapping)]
    unread = next((n for n in named if n is not None and str(n).upper() not in _MODELOPT), None)
    if unread is not None:
        raise CheckpointError(
            f"quantised by modelopt's {unread!r}, which is not read, only FP8, MXFP8 and NVFP4 with scales"
            " are; convert the model it was made from"
        )


def empty_biases(
    coded: Mapping[str, CodedTensor], tensors: Mapping[str, TensorInfo], read: ReadStored
) -> set[str]:
    """Biases of nothing but zeros, which GPTQ's programs write for matrices that have none."""
    found = set()
    for name in coded:
        bias = name.removesuffix("weight") + "bias"
        # Those of queries, keys and values may be a model's own. Those of experts, which may be thousands,
        # are not read: no family has any under these names.
        is_own = name.rpartition(".")[0].endswith(("q_proj", "k_proj", "v_proj"))
        if bias not in tensors or is_own:
            continue
        if ".experts." in name or not np.any(read(bias, None, 0, tensors[bias].shape[0])):
            found.add(bias)
    return found


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    inner = text.get(_KEY) if isinstance(text, Mapping) else None
    found = config.get(_KEY) or inner
    return found if isinstance(found, Mapping) else {}


def _method(config: Mapping[str, Any]) -> str | None:
    method = _settings(config).get("quant_method")
    return None if method is None else str(method)


def _blocks(settings: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Sizes of the blocks of rows and columns that share a scale: those that are said, then the usual one."""
    if settings.get("weight_block_size"):
        return [_checked_block(settings["weight_block_size"])]
    said = []
    for weights in _compressed_weights(settings):
        if isinstance(weights.get("block_structure"), list):
            said.append(_checked_block(weights["block_structure"]))
        if isinstance(weights.get("group_size"), int) and weights["group_size"] > 0:
            said.append((1, weights["group_size"]))
    return [*said, USUAL_BLOCK]


def _compressed_weights(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What compressed-tensors says of the weights of each group of matrices."""
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            yield weights


def _checked_block(block: Any) -> tuple[int, int]:
    if not isinstance(block, list) or len(block) != 2 or not all(isinstance(n, int) and n > 0 for n in block):
        raise CheckpointError(
            f"config.json: weight_block_size {block!r} is not two numbers of rows and columns"
        )
    return block[0], block[1]
