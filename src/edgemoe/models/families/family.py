"""What a family file says: how the family reads its configuration and how checkpoints name its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.gguf_names import GgufFamily
from edgemoe.models.families.names import Name, Names, NameTable, Naming, parts_filled, plus_one
from edgemoe.models.spec import ModelSpec


@dataclass(frozen=True)
class Mtp:
    """Where checkpoints of a family have a layer that predicts further tokens, and ``MtpSpec``'s flag.

    ``prefix`` is before the names of an ordinary layer's tensors; ``{l}`` in it is the number of layers.
    ``top``: the names of what such a layer has beside them.
    """

    prefix: str
    top: Mapping[str, Names]
    hands_on_normed: bool

    def names(self, family: NameTable, spec: ModelSpec) -> NameTable:
        """The table of the layer, given its family's."""
        return _of_one_layer(family, self.prefix.format(l=len(spec.layers)), self.top)


def gguf_mtp_names(family: NameTable, spec: ModelSpec) -> NameTable:
    """The same in GGUF files, which have such a layer behind all others, whatever the family."""
    return _of_one_layer(family, family.layer_prefix.format(l=len(spec.layers)), _GGUF_TOP)


def _of_one_layer(family: NameTable, prefix: str, top: Mapping[str, Names]) -> NameTable:
    return replace(family, prefixes=(prefix,), layer_prefix="", top=top)


_GGUF_TOP: Mapping[str, Names] = {
    "embed_norm.weight": ("nextn.enorm.weight",),
    "hidden_norm.weight": ("nextn.hnorm.weight",),
    "join.weight": (Name("nextn.eh_proj.weight", parts_filled(2, columns=True)),),
    # Where it has none, llama.cpp takes the model's.
    "norm.weight": ("nextn.shared_head_norm.weight", "/output_norm.weight"),
}


# DeepSeek-V3's, and that of its followers: one more layer.
EXTRA_LAYER = Mtp(
    "model.layers.{l}.",
    {
        "embed_norm.weight": ("enorm.weight",),
        "hidden_norm.weight": ("hnorm.weight",),
        "join.weight": (Name("eh_proj.weight", parts_filled(2, columns=True)),),
        "norm.weight": ("shared_head.norm.weight",),
    },
    hands_on_normed=False,
)
# Qwen3-Next's, and that of its followers; norms are stored less one.
MODULE = Mtp(
    "mtp.layers.0.",
    {
        "embed_norm.weight": (Name("/mtp.pre_fc_norm_embedding.weight", plus_one),),
        "hidden_norm.weight": (Name("/mtp.pre_fc_norm_hidden.weight", plus_one),),
        "join.weight": (Name("/mtp.fc.weight", parts_filled(2, columns=True)),),
        "norm.weight": (Name("/mtp.norm.weight", plus_one),),
    },
    hands_on_normed=True,
)


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
    mtp: Mtp | None = None
