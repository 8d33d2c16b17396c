"""Which method a checkpoint was quantised with, by its configuration, and the matrices that it coded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemoe.checkpoint.coded import CodedTensor, ReadStored
from edgemoe.checkpoint.float8 import find_float8
from edgemoe.checkpoint.packed_int import find_awq, find_gptq, find_packed
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError

_KEY = "quantization_config"
# Methods that are read; others stay in the configuration, and are refused by name where that is read.
METHODS = ("fp8", "gptq", "awq", "compressed-tensors", "mxfp4")
_COMPRESSED = ("pack-quantized", "float-quantized", "naive-quantized", "dense", None)


def without_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as that of the model before it was quantised, if its method is read."""
    found = dict(config)
    if _method(config) not in METHODS:
        return found
    found.pop(_KEY, None)
    text = found.get("text_config")
    if isinstance(text, Mapping):
        found["text_config"] = {key: value for key, value in text.items() if key != _KEY}
    return found


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
    coded: dict[str, CodedTensor] = {}
    if method == "compressed-tensors":
        if settings.get("format") not in _COMPRESSED:
            raise CheckpointError(
                f"compressed-tensors of format {settings.get('format')!r} is not read; convert the model it"
                " was made from"
            )
        coded.update(find_packed(tensors, settings))
    coded.update(find_float8(tensors, _block(settings)))
    return coded


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


def _block(settings: Mapping[str, Any]) -> tuple[int, int]:
    block = settings.get("weight_block_size") or [128, 128]
    if not isinstance(block, list) or len(block) != 2 or not all(isinstance(n, int) and n > 0 for n in block):
        raise CheckpointError(
            f"config.json: weight_block_size {block!r} is not two numbers of rows and columns"
        )
    return block[0], block[1]
