"""What a GGUF file says of a model: the families' tables of keys backwards, then read again and compared.

What a file cannot say is refused before any work: the reader of such files must give the same model back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from edgemoe.checkpoint.gguf.config import read_config, takes_key
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.export.facts import configuration_facts, file_facts
from edgemoe.export.outline import gguf_family
from edgemoe.models import ModelSpec, family_of, find_sources, read_spec
from edgemoe.models.families import GgufFamily
from edgemoe.models.rope import yarn_bounds
from edgemoe.source_ref import Shape

# Turns of a pair within the trained context at which YaRN's ramp ends and begins, where nothing is said.
_USUAL_BOUNDS = {"beta_fast": 32.0, "beta_slow": 1.0}


def model_keys(spec: ModelSpec, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The keys that begin with the architecture's name; ``shapes`` are those of the file's tensors.

    Raises:
        UnsupportedModelError: reading them again would give another model.
    """
    _, gguf = gguf_family(spec)
    text = config.get("text_config") or config
    found = {key: value for key, value in file_facts(spec, gguf).items() if takes_key(gguf, key)}
    found |= _family_keys(spec, gguf, text)
    if gguf.says is not None:
        found = {key: value for key, value in (found | gguf.says(spec)).items() if value is not None}
    for key in gguf.unheeded:
        if found.get(key) != gguf.implied.get(gguf.keys[key]):
            raise UnsupportedModelError(
                f"{family_of(spec).title} cannot be exported as it is: llama.cpp passes over"
                f" {gguf.architecture}.{key} = {found[key]!r}, and would run another model"
            )
    _check_router(spec)
    _check_stretch(spec, gguf)
    keys = {f"{gguf.architecture}.{key}": value for key, value in found.items()}
    _check(spec, {"general.architecture": gguf.architecture, **keys}, shapes)
    return keys


def notes(spec: ModelSpec) -> tuple[str, ...]:
    """What llama.cpp computes otherwise than the model, though the file says all that it can say."""
    rope = next((layer.rope for layer in spec.layers if layer.rope is not None), None)
    if rope is None or rope.kind != "yarn" or rope.scaling.get("truncate", True):
        return ()
    low, high = yarn_bounds(rope)
    if (low, high) == (math.floor(low), math.ceil(high)):
        return ()
    return (
        "llama.cpp rounds the bounds of YaRN, between which pairs of a head are stretched by degrees:"
        f" {low:.2f} to {high:.2f} become {math.floor(low)} to {math.ceil(high)}, as in any other file",
    )


def _check_router(spec: ModelSpec) -> None:
    """Refuse a rule by which llama.cpp does not choose and weigh experts.

    Raises:
        UnsupportedModelError: there is one.
    """
    if any(spec.moe(layer).router.score == "sparse_mixer" for layer in spec.moe_layers):
        raise UnsupportedModelError(
            f"{family_of(spec).title} cannot be exported: llama.cpp weighs its experts by the softmax over"
            " all of them, and would run another model"
        )


def _check_stretch(spec: ModelSpec, gguf: GgufFamily) -> None:
    """Refuse bounds of YaRN that llama.cpp does not read for any architecture that is written.

    Raises:
        UnsupportedModelError: naming the key.
    """
    ropes = (layer.rope for layer in spec.layers if layer.rope is not None and layer.rope.kind == "yarn")
    for rope in ropes:
        for name, usual in _USUAL_BOUNDS.items():
            if (rope.scaling.get(name) or usual) != usual:
                raise UnsupportedModelError(
                    f"{family_of(spec).title} cannot be exported as it is: llama.cpp passes over"
                    f" {gguf.architecture}.rope.scaling.yarn_{name} = {rope.scaling[name]!r}, and would run"
                    " another model"
                )


def _family_keys(spec: ModelSpec, gguf: GgufFamily, config: Mapping[str, Any]) -> dict[str, Any]:
    facts = configuration_facts(spec)
    width = spec.moe(spec.moe_layers[0]).expert.width
    if "moe_intermediate_size" not in gguf.keys.values():
        facts["intermediate_size"] = width  # there is but one width
    found = {key: facts.get(name) for key, name in gguf.keys.items()}
    for key, name in gguf.keys.items():
        if found[key] is None:
            found[key] = config.get(name)
    # llama.cpp asks for it whatever the layers are.
    found.setdefault("feed_forward_length", width)
    found |= {key: max(allowed) for key, allowed in gguf.checked.items() if key not in found}
    return {key: value for key, value in found.items() if value is not None and takes_key(gguf, key)}


def _check(spec: ModelSpec, keys: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Read the keys again.

    Raises:
        UnsupportedModelError: another model would come of them; the message names a difference.
    """
    title = family_of(spec).title
    try:
        again = read_spec(read_config(_as_read(keys), shapes))
        find_sources(again, shapes)
    except CheckpointError as error:
        raise UnsupportedModelError(f"{title} cannot be exported: {error}") from error
    except LookupError as error:
        raise UnsupportedModelError(f"{title} cannot be exported: nothing says GGUF's {error}") from error
    difference = next(_differences("", spec, replace(again, family=spec.family)), None)
    if difference is not None:
        where, ours, theirs = difference
        raise UnsupportedModelError(
            f"{title} cannot be exported as it is: of {where} = {ours!r} GGUF files say {theirs!r}"
        )


def _as_read(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as files hold them: in single precision."""
    return {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in keys.items()}


def _differences(where: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    """Places where two specs differ by more than single precision."""
    if is_dataclass(ours) and type(ours) is type(theirs):
        for field in fields(ours):
            name = f"{where}.{field.name}" if where else field.name
            yield from _differences(name, getattr(ours, field.name), getattr(theirs, field.name))
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(f"{where}[{index}]", *pair)
    elif isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.keys() == theirs.keys():
        for key in ours:
            yield from _differences(f"{where}.{key}", ours[key], theirs[key])
    elif isinstance(ours, float) and isinstance(theirs, float):
        if not np.isclose(ours, theirs, rtol=2e-7, atol=0):
            yield where, ours, theirs
    elif ours != theirs:
        yield where, ours, theirs
