"""Rotary position embedding with the scaling rules of Hugging Face checkpoints.

Sources: RoPE (arXiv 2104.09864), YaRN and dynamic NTK (arXiv 2309.00071), Llama 3.1's rule.
Letters: T tokens, R rotated pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, check_number, check_size, shown
from edgemoe.models.mixer_spec import RopeSpec

FloatArray = NDArray[np.float32]

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
    are the latter of files that have neither.

    Raises:
        UnsupportedModelError: unknown rule or parameter, or one that gives no angles.
    """
    theta = reader.number("rope_theta", default_theta)
    parameters = {**reader.table("rope_scaling"), **reader.table("rope_parameters")} or {
        **(default_rope or {})
    }
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


def promised_context(rope: RopeSpec) -> int:
    """The longest text in tokens: what scaling stretches is the context that the model was trained with.

    With YaRN the configuration may name either the trained context or the stretched one, whichever is
    longer counts; Llama 3's rule is only published with the stretched one.
    """
    factor = rope.scaling.get("factor", 1.0)
    if rope.kind in ("linear", "dynamic"):
        return int(rope.trained_context * max(1.0, factor))
    if rope.kind == "yarn":
        original = rope.scaling["original_max_position_embeddings"]
        return max(rope.trained_context, int(original * factor))
    return rope.trained_context


def _scaling(kind: str, parameters: Mapping[str, Any], context: int) -> dict[str, float]:
    required, optional = _RULES[kind]
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
            is_sound = is_sound and bool(np.isfinite(_frequencies(spec)).all())
            is_sound = is_sound and math.isfinite(_attention_factor(spec))
            if spec.kind == "dynamic":
                longest = _dynamic(spec, promised_context(spec))
                is_sound = is_sound and bool(np.isfinite(longest).all())
    except (ArithmeticError, ValueError):
        is_sound = False
    if not is_sound:
        raise UnsupportedModelError(
            f"config.json: rope_theta {spec.theta:g} with rope type {spec.kind} and its parameters gives no"
            " finite angles"
        )


# Where a text grows token by token: positions whose angles are made at once, which takes hardly longer than
# those of one, and how many such tables are kept.
_TABLE_ROWS = 16
_MOST_TABLES = 16


class Rotation:
    """The angles by which a text's queries and keys are rotated."""

    def __init__(self, spec: RopeSpec) -> None:
        self._spec = spec
        self._frequencies = _frequencies(spec)[None, :]
        self._factor = np.float32(_attention_factor(spec))
        self._tables: dict[int, tuple[FloatArray, FloatArray]] = {}

    def __call__(self, start: int, num_tokens: int) -> tuple[FloatArray, FloatArray]:
        """Cos and sin (T, R) of positions [start, start + T).

        "dynamic" rotates each position with the base that belongs to a text ending there, as transformers
        does step by step; so the result does not depend on how a prompt is cut into chunks.
        """
        number, first = divmod(start, _TABLE_ROWS)
        if num_tokens > 1 or self._spec.kind == "dynamic":
            return self._angles(start, num_tokens)
        table = self._tables.get(number)
        if table is None:
            if len(self._tables) == _MOST_TABLES:
                self._tables.clear()
            table = self._tables[number] = self._angles(start - first, _TABLE_ROWS)
        cos, sin = table
        return cos[first : first + 1], sin[first : first + 1]

    def _angles(self, start: int, num_tokens: int) -> tuple[FloatArray, FloatArray]:
        spec, frequencies = self._spec, self._frequencies
        if spec.kind == "dynamic" and start + num_tokens > spec.trained_context:
            frequencies = np.stack([_dynamic(spec, start + t + 1) for t in range(num_tokens)])
        positions = np.arange(start, start + num_tokens, dtype=np.float32)[:, None]
        angles = positions * frequencies
        cos: FloatArray = np.cos(angles) * self._factor
        sin: FloatArray = np.sin(angles) * self._factor
        return cos, sin


def _plain(theta: float, rotary_dim: int) -> FloatArray:
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / np.float32(rotary_dim)
    return np.asarray(1.0 / np.power(np.float32(theta), exponents), np.float32)


def _dynamic(spec: RopeSpec, length: int) -> FloatArray:
    factor, context = spec.scaling["factor"], spec.trained_context
    stretch = factor * max(length, context) / context - (factor - 1)
    dim = spec.rotary_dim
    return _plain(spec.theta * stretch ** (dim / (dim - 2)), dim)


def _frequencies(spec: RopeSpec) -> FloatArray:
    plain = _plain(spec.theta, spec.rotary_dim)
    if spec.kind == "proportional":
        is_turning = np.arange(len(plain)) < spec.scaling["num_turning"]
        return np.asarray(np.where(is_turning, plain / spec.scaling.get("factor", 1.0), 0), np.float32)
    if spec.kind == "divided":
        return np.asarray(plain / np.asarray(spec.divisors, np.float32), np.float32)
    if spec.kind == "linear":
        return np.asarray(plain / spec.scaling["factor"], np.float32)
    if spec.kind == "llama3":
        return _llama3(plain, spec.scaling)
    if spec.kind == "yarn":
        return _yarn(plain, spec)
    return plain


def _llama3(plain: FloatArray, scaling: Mapping[str, float]) -> FloatArray:
    """Long wavelengths are stretched by the factor, short ones kept, those between blended."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    blended = (1 - share) * plain / scaling["factor"] + share * plain
    return np.asarray(blended, np.float32)


def yarn_bounds(spec: RopeSpec) -> tuple[float, float]:
    """Pairs below the first turn so often that YaRN keeps them, those above the second are stretched."""
    scaling, dim = spec.scaling, spec.rotary_dim

    def dimension_of(num_turns: float) -> float:
        wavelength = scaling["original_max_position_embeddings"] / (num_turns * 2 * math.pi)
        return dim * math.log(wavelength) / (2 * math.log(spec.theta))

    low = dimension_of(scaling.get("beta_fast") or 32)
    high = dimension_of(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", 1.0):
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, dim - 1)


def _yarn(plain: FloatArray, spec: RopeSpec) -> FloatArray:
    """Dimensions that turn often are kept, those that turn seldom stretched, a ramp between."""
    scaling, dim = spec.scaling, spec.rotary_dim
    low, high = yarn_bounds(spec)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    stretched = plain / scaling["factor"]
    return np.asarray(stretched * ramp + plain * (1 - ramp), np.float32)


def _attention_factor(spec: RopeSpec) -> float:
    if spec.kind == "divided":
        return spec.scaling["attention_factor"]
    if spec.kind != "yarn":
        return 1.0
    scaling, factor = spec.scaling, spec.scaling["factor"]

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if "attention_factor" in scaling:
        return scaling["attention_factor"]
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return magnitude(scaling["mscale"]) / magnitude(scaling["mscale_all_dim"])
    return magnitude(1.0)
