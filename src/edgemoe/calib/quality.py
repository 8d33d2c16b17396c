"""What a change of widths does to a model's predictions, on the same text, with its uncertainty.

Letters: W windows of text, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.engine.loading import Engine
from edgemoe.native import FloatArray

CONFIDENCE = 0.95
NUM_DRAWS = 2000


@dataclass(frozen=True)
class Quality:
    """Sums over each window (W,): tokens, nats of the original and of the changed model, divergence."""

    num_tokens: NDArray[np.int64]
    reference_nats: NDArray[np.float64]
    nats: NDArray[np.float64]
    divergence: NDArray[np.float64]

    @property
    def increase(self) -> float:
        """Of the perplexity, relative: 0.02 is two per cent."""
        return math.expm1(float((self.nats - self.reference_nats).sum() / self.num_tokens.sum()))

    @property
    def mean_divergence(self) -> float:
        """Kullback-Leibler divergence of the changed from the original model, nats per token."""
        return float(self.divergence.sum() / self.num_tokens.sum())

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Of the increase, by a bootstrap over windows with a fixed seed."""
        rng = np.random.default_rng(0)
        picked = rng.integers(0, len(self.nats), (NUM_DRAWS, len(self.nats)))
        difference = (self.nats - self.reference_nats)[picked].sum(axis=1)
        drawn = np.expm1(difference / self.num_tokens[picked].sum(axis=1))
        tail = (1 - confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return float(low), float(high)


def compare(reference: Engine, changed: Engine, windows: Sequence[Sequence[int]]) -> Quality:
    """Run both models over the same windows in step; no logits are kept."""
    rows = []
    for window in windows:
        context, answer = reference.session.split(window)
        targets = np.asarray(answer)
        sums = np.zeros(3)
        row = 0
        ours, theirs = (e.session.answer_logits(context, answer) for e in (reference, changed))
        for a, b in zip(ours, theirs, strict=True):
            sums += _sums(a, b, targets[row : row + len(a)])
            row += len(a)
        rows.append((len(targets), *sums.tolist()))
    counts, reference_nats, nats, divergence = np.array(rows).T
    return Quality(counts.astype(np.int64), reference_nats, nats, divergence)


def _sums(a: FloatArray, b: FloatArray, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Nats of both, and the divergence of b from a, of logits (T, V)."""
    log_a, log_b = _log_softmax(a), _log_softmax(b)
    index = np.arange(len(targets))
    divergence = (np.exp(log_a) * (log_a - log_b)).sum()
    return np.array([-log_a[index, targets].sum(), -log_b[index, targets].sum(), divergence])


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities
