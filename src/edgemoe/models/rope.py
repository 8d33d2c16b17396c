"""Rotary position embedding: the angles of every rule that Hugging Face checkpoints know.

``rope_config.py`` reads the rules. Sources: RoPE (arXiv 2104.09864), YaRN and dynamic NTK (arXiv 2309.00071),
Llama 3.1's rule. Letters: T tokens, R rotated pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.mixer_spec import RopeSpec

FloatArray = NDArray[np.float32]

# Where a text grows token by token: positions whose angles are made at once, which takes hardly longer than
# those of one, and how many such tables are kept.
_TABLE_ROWS = 16
_MOST_TABLES = 16


class Rotation:
    """The angles by which a text's queries and keys are rotated."""

    def __init__(self, spec: RopeSpec) -> None:
        self._spec = spec
        self._frequencies = frequencies_of(spec)[None, :]
        self._factor = np.float32(attention_factor(spec))
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
            frequencies = np.stack([stretched_frequencies(spec, start + t + 1) for t in range(num_tokens)])
        positions = np.arange(start, start + num_tokens, dtype=np.float32)[:, None]
        angles = positions * frequencies
        cos: FloatArray = np.cos(angles) * self._factor
        sin: FloatArray = np.sin(angles) * self._factor
        return cos, sin


def _plain(theta: float, rotary_dim: int) -> FloatArray:
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / np.float32(rotary_dim)
    return np.asarray(1.0 / np.power(np.float32(theta), exponents), np.float32)


def stretched_frequencies(spec: RopeSpec, length: int) -> FloatArray:
    """Those of "dynamic" (R,) in a text of so many tokens."""
    factor, context = spec.scaling["factor"], spec.trained_context
    stretch = factor * max(length, context) / context - (factor - 1)
    dim = spec.rotary_dim
    return _plain(spec.theta * stretch ** (dim / (dim - 2)), dim)


def frequencies_of(spec: RopeSpec) -> FloatArray:
    """Angles (R,) by which each pair turns from one position to the next, in texts as long as trained."""
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


def attention_factor(spec: RopeSpec) -> float:
    """What cos and sin are multiplied by."""
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
