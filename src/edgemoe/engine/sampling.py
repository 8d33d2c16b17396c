"""Logits → token: pure functions; the only state is the random generator that is passed in. V: vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.errors import RequestError
from edgemoe.native import FloatArray


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest.

    Applied in this order: repetition penalty, temperature, top_k, top_p, min_p. 0 (top_k, min_p) and
    1 (top_p, repetition_penalty) switch a filter off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(self.temperature >= 0, "temperature", self.temperature, "0 or more")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1")
        _require(self.repetition_penalty > 0, "repetition_penalty", self.repetition_penalty, "above 0")

    def generator(self) -> np.random.Generator:
        """A fresh random generator for one answer."""
        return np.random.default_rng(self.seed)


def _require(holds: bool, name: str, value: float, allowed: str) -> None:
    if not holds:
        raise RequestError(f"{name} is {value}; it must be {allowed}")


def sample(
    logits: FloatArray, sampling: Sampling, generator: np.random.Generator, context: Iterable[int]
) -> int:
    """Draw a token from logits (V,). ``context`` holds the tokens that count as repeated."""
    if sampling.repetition_penalty != 1.0:
        logits = penalized(logits, np.unique(np.fromiter(context, np.int64)), sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    tokens, probabilities = candidates(logits, sampling)
    position = np.searchsorted(np.cumsum(probabilities), generator.random(), side="right")
    return int(tokens[min(int(position), len(tokens) - 1)])


def penalized(logits: FloatArray, repeated: NDArray[np.int64], penalty: float) -> FloatArray:
    """Logits with those of repeated tokens divided (if positive) or multiplied (CTRL, arXiv 1909.05858)."""
    logits = logits.copy()
    values = logits[repeated]
    logits[repeated] = np.where(values > 0, values / penalty, values * penalty)
    return logits


def candidates(logits: FloatArray, sampling: Sampling) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Tokens that may be drawn, likeliest first, and their probabilities."""
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    scaled = logits[order].astype(np.float64) / sampling.temperature
    probabilities = np.exp(scaled - scaled[0])
    probabilities /= probabilities.sum()
    if sampling.top_p < 1:
        before = np.cumsum(probabilities) - probabilities
        probabilities = probabilities[before < sampling.top_p]
    if sampling.min_p > 0:
        probabilities = probabilities[probabilities >= sampling.min_p * probabilities[0]]
    return order[: len(probabilities)], probabilities / probabilities.sum()
