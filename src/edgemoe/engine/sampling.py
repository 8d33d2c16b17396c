"""Logits → token: pure functions; the only state is the random generator that is passed in. V: vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe.arguments import biases, number, whole
from edgemoe.errors import RequestError
from edgemoe.native import FloatArray

_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_LARGEST_PENALTY = 1_000_000  # beyond it logits overflow single precision
MAX_TOP_LOGPROBS = 256  # alternatives told of with a token; a client that wants all wants ``Model.logits``


class Constraint(Protocol):
    """A grammar or the like: which tokens may come next. Used by one text, which has it for itself."""

    def mask(self) -> NDArray[np.bool_] | None:
        """Which tokens (V,) may come next; those that end an answer included where it may end. None: all."""
        ...

    def accept(self, token_id: int) -> None:
        """Take note of the token that has come; not called for one that ends the answer."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest.

    Applied in this order: repetition, presence and frequency penalty, logit_bias, a constraint, temperature,
    top_k, top_p, min_p. 0 (top_k, min_p, presence and frequency penalty) and 1 (top_p, repetition_penalty)
    switch a filter off; top_p 0 leaves the likeliest token alone. The repetition penalty counts the tokens of
    prompt and answer, the other two those of the answer only, as OpenAI has them.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of these tokens

    def __post_init__(self) -> None:
        """Raises RequestError if a value is of another kind, or none that can be."""
        for name in _NUMBERS:
            object.__setattr__(self, name, number(name, getattr(self, name)))
        object.__setattr__(self, "top_k", whole("top_k", self.top_k, 0))
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed", self.seed, 0))
        object.__setattr__(self, "logit_bias", biases("logit_bias", self.logit_bias))
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 or more")
        _require(0 <= self.top_p <= 1, "top_p", self.top_p, "between 0 and 1")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1")
        penalty = self.repetition_penalty
        _require(
            0 < penalty <= _LARGEST_PENALTY, "repetition_penalty", penalty, f"above 0, to {_LARGEST_PENALTY}"
        )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _require(math.isfinite(value), name, value, "a finite number")

    @property
    def changes_logits(self) -> bool:
        """Whether penalties or biases change what the model gives."""
        has_penalty = bool(self.presence_penalty or self.frequency_penalty)
        return has_penalty or bool(self.logit_bias) or self.repetition_penalty != 1.0

    def generator(self) -> np.random.Generator:
        """A fresh random generator for one answer."""
        return np.random.default_rng(self.seed)

    def check(self, vocab_size: int) -> None:
        """Raises RequestError if a token of ``logit_bias`` is outside the vocabulary."""
        wrong = next((t for t in self.logit_bias if not 0 <= t < vocab_size), None)
        if wrong is not None:
            raise RequestError(f"logit_bias: token id {wrong} is outside the vocabulary of {vocab_size}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely the model held a token and its likeliest alternatives; natural logarithms.

    Of the model's own distribution: before penalties, biases, constraints and temperature.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # (token id, logprob), the likeliest first


def _require(holds: bool, name: str, value: float, allowed: str) -> None:
    if not holds:
        raise RequestError(f"{name} is {value:g}; it must be {allowed}")


def sample(
    logits: FloatArray,
    sampling: Sampling,
    generator: np.random.Generator,
    context: Iterable[int],
    answer: Sequence[int] = (),
    mask: NDArray[np.bool_] | None = None,
) -> int:
    """Draw a token from logits (V,).

    ``context`` holds the tokens that count as repeated, ``answer`` those of the answer alone; ``mask`` (V,)
    says which tokens may be drawn at all.

    Raises:
        RequestError: mask and biases allow no token, or the mask is no table of the vocabulary.
    """
    logits = adjusted(logits, sampling, context, answer)
    if mask is not None:
        logits = np.where(_checked_mask(mask, len(logits)), logits, -np.inf).astype(np.float32)
    if (mask is not None or sampling.logit_bias) and logits.max() == -np.inf:
        raise RequestError(f"{_rules(sampling, mask)} allows no token to come next")
    if sampling.temperature == 0:
        return int(logits.argmax())
    tokens, probabilities = candidates(logits, sampling)
    position = np.searchsorted(np.cumsum(probabilities), generator.random(), side="right")
    return int(tokens[min(int(position), len(tokens) - 1)])


def _checked_mask(mask: NDArray[np.bool_], vocab_size: int) -> NDArray[np.bool_]:
    mask = np.asarray(mask, np.bool_)
    if mask.shape != (vocab_size,):
        raise RequestError(
            f"the constraint's mask has the shape {mask.shape}; give a value for each of {vocab_size} tokens"
        )
    return mask


def _rules(sampling: Sampling, mask: NDArray[np.bool_] | None) -> str:
    names = ["the constraint"] if mask is not None else []
    return " with ".join(names + (["logit_bias"] if sampling.logit_bias else []))


def adjusted(
    logits: FloatArray, sampling: Sampling, context: Iterable[int], answer: Sequence[int]
) -> FloatArray:
    """Logits (V,) after penalties and biases; the same array where there are none.

    None is above the largest number, whatever was added: of several that would be, each is as likely.
    """
    if not sampling.changes_logits:
        return logits
    with np.errstate(over="ignore"):
        changed = _changed(logits, sampling, context, answer)
    within: FloatArray = np.minimum(changed, np.finfo(np.float32).max)
    return within


def _changed(
    logits: FloatArray, sampling: Sampling, context: Iterable[int], answer: Sequence[int]
) -> FloatArray:
    if sampling.repetition_penalty != 1.0:
        logits = penalized(logits, np.unique(np.fromiter(context, np.int64)), sampling.repetition_penalty)
    if answer and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens, counts = np.unique(np.asarray(answer, np.int64), return_counts=True)
        logits = logits.copy()
        penalties = sampling.presence_penalty + sampling.frequency_penalty * counts
        logits[tokens] -= penalties.astype(np.float32)
    if sampling.logit_bias:
        logits = logits.copy()
        biased = list(sampling.logit_bias)
        logits[biased] += np.array([sampling.logit_bias[t] for t in biased], np.float32)
    return logits


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
    below = logits[order].astype(np.float64) - float(logits[order[0]])
    with np.errstate(over="ignore"):  # temperatures next to 0 leave the likeliest alone
        probabilities = np.exp(below / sampling.temperature)
    probabilities = probabilities[probabilities > 0]  # a token that is ruled out stays so
    probabilities /= probabilities.sum()
    if sampling.top_p < 1:
        before = np.cumsum(probabilities) - probabilities
        probabilities = probabilities[: max(1, int(np.count_nonzero(before < sampling.top_p)))]
    if sampling.min_p > 0:
        probabilities = probabilities[probabilities >= sampling.min_p * probabilities[0]]
    return order[: len(probabilities)], probabilities / probabilities.sum()


def token_logprob(logits: FloatArray, token_id: int, num_top: int) -> TokenLogprob:
    """How likely logits (V,) make a token, and the ``num_top`` likeliest ones."""
    shifted = logits.astype(np.float64) - float(logits.max())
    values = shifted - math.log(np.exp(shifted).sum())
    num_top = min(num_top, len(values))
    top: list[int] = []
    if num_top:
        likeliest = np.argpartition(-values, num_top - 1)[:num_top]
        # Of equals the first, whatever the partition gave.
        lowest = values[likeliest].min()
        likeliest = np.flatnonzero(values >= lowest)
        top = likeliest[np.argsort(-values[likeliest], kind="stable")][:num_top].tolist()
    return TokenLogprob(token_id, float(values[token_id]), tuple((t, float(values[t])) for t in top))
