"""Model families: how each reads its configuration and names its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.mixtral import read_mixtral
from edgemoe.models.families.olmoe import read_olmoe
from edgemoe.models.families.qwen_moe import read_qwen2, read_qwen3
from edgemoe.models.families.sources import TensorSources, find_sources
from edgemoe.models.families.switch import read_switch
from edgemoe.models.spec import ModelSpec

__all__ = ["FAMILIES", "TensorSources", "find_sources", "read_spec"]

FAMILIES: Mapping[str, Callable[[ConfigReader], ModelSpec]] = {
    "mixtral": read_mixtral,
    "olmoe": read_olmoe,
    "qwen2_moe": read_qwen2,
    "qwen3_moe": read_qwen3,
    "switch_transformers": read_switch,
}
WITH_ENCODER = ("switch_transformers",)


def read_spec(config: Mapping[str, Any]) -> ModelSpec:
    """The ModelSpec of a Hugging Face configuration.

    Raises:
        UnsupportedModelError: unknown family, key or value; the message names it.
    """
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise UnsupportedModelError(
            f"config.json: model_type {family!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    reader = ConfigReader(config)
    if family not in WITH_ENCODER:
        reader.refuse("is_encoder_decoder", (False,), "the family is a decoder")
    reader.refuse("quantization_config", (), "convert from an unquantised checkpoint")
    try:
        spec = FAMILIES[family](reader)
    except UnsupportedModelError:
        raise
    except (TypeError, ValueError) as error:
        raise UnsupportedModelError(f"config.json: a value is not of its kind: {error}") from error
    reader.finish()
    return spec
