"""What a family file says: how the family reads its configuration and how checkpoints name its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.gguf_names import GgufFamily
from edgemoe.models.families.names import Naming
from edgemoe.models.spec import ModelSpec


@dataclass(frozen=True)
class Family:
    """A family of models.

    ``model_types``: what its configurations call it, the usual name first. ``holders``: model types of
    configurations that hold one of these as their ``text_config``, beside towers for images and sound.
    ``gguf_of``: the model type of the family that its GGUF files are of, where it has no architecture there.
    ``defaults``: what transformers takes for keys that a configuration leaves out. ``unused``: keys that
    published configurations have and that change nothing.
    """

    title: str
    model_types: tuple[str, ...]
    read: Callable[[ConfigReader], ModelSpec]
    names: Naming
    gguf: GgufFamily | None = None
    gguf_of: str | None = None
    holders: tuple[str, ...] = ()
    has_encoder: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
