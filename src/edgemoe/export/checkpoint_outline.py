"""Which tensors a checkpoint of Hugging Face's has in the format of compressed-tensors, by the usual names of
its family, and which models have no such checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.export.integers import GROUP_COLS
from edgemoe.export.outline import Target, outline
from edgemoe.models import ModelSpec, family_of
from edgemoe.models.families import Family
from edgemoe.models.families.names import NameTable, Naming
from edgemoe.source_ref import Shape

FORMAT = "compressed-tensors"
# Axes of length 1 that checkpoints have in some tensors, and that change no value: by the end of the name,
# where they stand.
_UNIT_AXES = {
    "conv1d.weight": (1,),
    "conv.conv.weight": (1,),
    "moe_statics.e_score_correction_bias": (0,),
}
# transformers (5.23) merges their convolutions as it loads, and drops floats that it merges beside packed
# matrices.
_NOT_LOADED = ("bailing_hybrid", "kimi_linear")


def checkpoint_outline(spec: ModelSpec, config: Mapping[str, Any]) -> list[Target]:
    """All tensors of the checkpoint, those of experts behind all others.

    Raises:
        UnsupportedModelError: one of these has no such form.
    """
    family = family_of(spec)

    def refusal(why: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{family.title} cannot be exported as {FORMAT}: {why}")

    if family.has_encoder:
        raise refusal("vLLM runs no such encoder")
    if spec.family in _NOT_LOADED:
        raise refusal("transformers does not load its convolutions beside packed matrices")
    if "text_config" in config:
        raise refusal("config.json is of a model with towers for images or sound, which the store has not")
    targets = outline(spec, _usual(family))
    if any(target.num_entries for target in targets):
        raise refusal(
            "its checkpoints have all experts of a layer in one tensor, and the format one for each"
        )
    unfilled = [tensor.name for tensor in spec.dense_tensors() if tensor.unfilled is not None]
    for layer in spec.moe_layers:
        if spec.stored_expert_shapes(layer) != spec.expert_shapes(layer):
            unfilled.append(f"layers.{layer}.experts")
    if unfilled:
        raise refusal(f"rows of {unfilled[0]} are no whole groups of {GROUP_COLS} columns")
    return targets


def all_names(spec: ModelSpec, canonical: str) -> list[str]:
    """All names that checkpoints and programs have for a tensor of the model, the usual one first."""
    return [ref.name for ref in family_of(spec).names.dense(spec, canonical)]


def _usual(family: Family) -> Naming:
    """The usual names of a model of text alone."""
    names = family.names
    if not isinstance(names, NameTable):
        return names
    return replace(names, prefixes=tuple(p for p in names.prefixes if "language_model" not in p))


def checkpoint_shape(target: Target) -> Shape:
    """The shape that a checkpoint has of a tensor of floats."""
    shape = list(target.entry)
    for place in next((axes for end, axes in _UNIT_AXES.items() if target.name.endswith(end)), ()):
        shape.insert(place, 1)
    return tuple(shape)
