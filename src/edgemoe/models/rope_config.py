"""Rotary position embedding in configurations: which rule, with which parameters, in either spelling.

Every parameter is checked here, and that it gives angles (``rope.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, check_number, check_size, shown
from edgemoe.models.mixer_spec import RopeSpec
from edgemoe.models.rope import attention_factor, frequencies_of, promised_context, stretched_frequencies

# Parameters of each rule: those that must be there, those that may.
_RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    # Frequencies fall over the whole head, and pairs from ``num_turning`` on do not turn (Gemma 4).
    "proportional": ((), ("factor",)),
    "dynamic": (("factor",), ("original_max_position_embeddings",)),
    "llama3": (
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        (),
    ),
    "yarn": (
        ("factor", "original_max_position_embeddings"),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
}
# Keys of YaRN's first program (arXiv 2309.00071) at values that change nothing, as for transformers.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "finetuned": (True, False),
    "extrapolation_factor": (1,),
    "attn_factor": (1,),
}
# Each pair has a divisor of its own: one list is for texts within the length of training, another for
# longer ones.
_DIVIDED = ("longrope", "su")
# Rules with the length that was trained with, where they do not say it that of the configuration.
_STRETCHED = ("llama3", "yarn", *_DIVIDED)


def read_rope(
    reader: ConfigReader,
    head_dim: int,
    default_theta: float,
    default_rope: Mapping[str, Any] | None = None,
    default_share: float | None = None,
) -> RopeSpec:
    """The RopeSpec of a configuration in either spelling.

    ``default_share`` of a head's entries rotate, unless a key says otherwise; None: all do in this family.
    Older files have ``rope_theta`` and ``rope_scaling``, newer ones ``rope_parameters``; ``default_rope``
    are the latter of files that have neither. Where cards say how to reach longer texts in the words of older
    files, and somebody writes that into a newer one, both count.

    Raises:
        UnsupportedModelError: unknown rule or parameter, or one that gives no angles.
    """
    theta = reader.number("rope_theta", default_theta)
    parameters = _joined(reader.table("rope_scaling"), reader.table("rope_parameters"))
    if not parameters and reader.optional("rope_parameters", None) is None:  # an empty table says: none
        parameters = {**(default_rope or {})}
    share = reader.number("partial_rotary_factor", default_share or 1.0)
    parameters = {"rope_theta": theta, "partial_rotary_factor": share, **parameters}
    if default_share is None and parameters["partial_rotary_factor"] != 1:
        raise UnsupportedModelError(
            f"config.json: partial_rotary_factor = {shown(parameters['partial_rotary_factor'])} is not"
            " supported: heads are rotated as a whole in this family"
        )
    original = reader.optional("original_max_position_embeddings", None)
    if original is not None and _kind(parameters) in _STRETCHED:
        parameters["original_max_position_embeddings"] = original
    return rope_of(parameters, head_dim, reader.require_size("max_position_embeddings"))


def rope_of(parameters: dict[str, Any], head_dim: int, context: int) -> RopeSpec:
    """The RopeSpec of the parameters of one kind of layer, ``rope_theta`` among them.

    Raises:
        UnsupportedModelError: as ``read_rope``.
    """
    kind = _kind(parameters)
    # Sections are of images: the positions of a text are the same on all axes.
    for key in ("rope_type", "type", "mrope_section", "mrope_interleaved"):
        parameters.pop(key, None)
    for key, values in _NEUTRAL.items():
        if parameters.get(key) in values:
            del parameters[key]
    if kind in _STRETCHED:
        parameters.setdefault("original_max_position_embeddings", context)
    if not isinstance(kind, str) or kind not in (*_RULES, *_DIVIDED):
        raise UnsupportedModelError(
            f"config.json: rope type {shown(kind)} is not supported; supported: {', '.join(_RULES)}, longrope"
        )
    theta = check_number("rope_theta", parameters.pop("rope_theta"))
    share = check_number("partial_rotary_factor", parameters.pop("partial_rotary_factor", 1))
    rotary_dim = int(head_dim * share)
    if kind in _DIVIDED:
        spec = _divided(parameters, theta, rotary_dim, context)
        _check(spec, head_dim)
        return spec
    scaling = _scaling(kind, parameters, context)
    if kind == "proportional":
        scaling["num_turning"], rotary_dim = int(share * head_dim // 2), head_dim
    spec = RopeSpec(kind, theta, rotary_dim, context, scaling)
    _check(spec, head_dim)
    return spec


def rope_of_kind(
    given: Mapping[str, Any], kind: str, defaults: Mapping[str, Any], head_dim: int, context: int
) -> RopeSpec:
    """The RopeSpec of layers of one kind, of ``rope_parameters`` that have an entry for each.

    Raises:
        UnsupportedModelError: as ``read_rope``; or nothing is said of the kind.
    """
    parameters = given.get(kind)
    if not isinstance(parameters, Mapping):
        raise UnsupportedModelError(f"config.json: rope_parameters has nothing for {kind}")
    # transformers looks for it beside the entries, where no configuration has it.
    stated = {key: value for key, value in parameters.items() if key != "truncate"}
    return rope_of({**defaults, **stated}, head_dim, context)


def _kind(parameters: Mapping[str, Any]) -> Any:
    """The rule; old files say "type", and where both are given they agree."""
    return parameters.get("rope_type") or parameters.get("type") or "default"


def _joined(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """What both spellings say; the newer one says nothing of the rule where that is the default.

    Raises:
        UnsupportedModelError: they contradict each other.
    """
    if older and newer and _kind(newer) == "default":
        newer = {key: value for key, value in newer.items() if key not in ("rope_type", "type")}
    elif older and newer and _kind(older) != _kind(newer):
        raise _contradiction("the rule", _kind(older), _kind(newer))
    for key in older.keys() & newer.keys() - {"rope_type", "type"}:
        if older[key] != newer[key]:
            raise _contradiction(key, older[key], newer[key])
    return {**older, **newer}


def _contradiction(what: str, older: Any, newer: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"config.json: rope_scaling says {shown(older)} of {what} and rope_parameters {shown(newer)}; take"
        " away the wrong one"
    )


def _scaling(kind: str, parameters: Mapping[str, Any], context: int) -> dict[str, float]:
    required, optional = _RULES[kind]
    if kind == "yarn" and parameters.get("truncate", True) is None:  # which transformers takes for false
        parameters = {**parameters, "truncate": False}
    given = {
        key: float(value) if isinstance(value, bool) else check_number(f"rope {key}", value)
        for key, value in parameters.items()
        if value is not None
    }
    unknown = sorted(set(given) - set(required) - set(optional))
    if unknown:
        raise UnsupportedModelError(f"config.json: rope type {kind} has no {', '.join(unknown)}")
    if kind == "yarn" and "factor" not in given and given.get("original_max_position_embeddings"):
        given["factor"] = context / given["original_max_position_embeddings"]
    missing = sorted(set(required) - set(given))
    if missing:
        raise UnsupportedModelError(f"config.json: rope type {kind} needs {', '.join(missing)}")
    return given


def _divided(parameters: dict[str, Any], theta: float, rotary_dim: int, context: int) -> RopeSpec:
    """LongRoPE (arXiv 2402.13753) within the length that was first trained with.

    Beyond it transformers divides the angles of a whole call otherwise, so that a text's logits would depend
    on how it is cut. Phi-3.5-MoE states the factor of cos and sin; else it follows from the stretch.
    """
    divisors = parameters.pop("short_factor", None)
    parameters.pop("long_factor", None)
    parameters.pop("long_mscale", None)
    if not isinstance(divisors, list) or len(divisors) != (rotary_dim + 1) // 2:
        raise UnsupportedModelError(
            f"config.json: short_factor {shown(divisors)} is not a list of {(rotary_dim + 1) // 2} numbers"
        )
    original = check_size(
        "original_max_position_embeddings", parameters.pop("original_max_position_embeddings")
    )
    given = {
        key: check_number(f"rope {key}", value) for key, value in parameters.items() if value is not None
    }
    unknown = sorted(set(given) - {"factor", "attention_factor", "short_mscale"})
    if unknown:
        raise UnsupportedModelError(f"config.json: rope type longrope has no {', '.join(unknown)}")
    stretch = given.get("factor", context / original)
    usual = 1.0 if stretch <= 1 or original == 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    factor = given.get("short_mscale", given.get("attention_factor", usual))
    return RopeSpec(
        "divided",
        theta,
        rotary_dim,
        min(original, context),
        {"attention_factor": factor},
        tuple(check_number("short_factor", value) for value in divisors),
    )


def _check(spec: RopeSpec, head_dim: int) -> None:
    """Refuse what gives no angles: sizes that do not pair, and numbers that are not finite on the way."""
    dim = spec.rotary_dim
    # Of an odd number the last one has its partner among those after them.
    if not 2 <= dim <= head_dim - dim % 2 or (spec.kind == "dynamic" and dim == 2):
        raise UnsupportedModelError(
            f"config.json: {dim} of a head's {head_dim} dimensions cannot be rotated in pairs"
        )
    is_sound = spec.theta > 0 and spec.scaling.get("factor", 1.0) > 0
    try:
        with np.errstate(all="ignore"):
            is_sound = is_sound and bool(np.isfinite(frequencies_of(spec)).all())
            is_sound = is_sound and math.isfinite(attention_factor(spec))
            if spec.kind == "dynamic":
                longest = stretched_frequencies(spec, promised_context(spec))
                is_sound = is_sound and bool(np.isfinite(longest).all())
    except (ArithmeticError, ValueError):
        is_sound = False
    if not is_sound:
        raise UnsupportedModelError(
            f"config.json: rope_theta {spec.theta:g} with rope type {spec.kind} and its parameters gives no"
            " finite angles"
        )
