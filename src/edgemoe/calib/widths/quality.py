"""What a change of widths does to a model's predictions, on the same text, with its uncertainty.

Letters: P pieces of text, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.engine.bootstrap import CONFIDENCE, draw_indices, interval_of
from edgemoe.engine.loading import Engine
from edgemoe.errors import RequestError
from edgemoe.native import FloatArray

# Tokens of one piece, the unit of the bootstrap: losses are related over a few sentences, not over pages.
PIECE = 128

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Sums over each piece (P,): tokens, nats of the original and of the changed model, divergence, hits.

    A hit is a token that the model would have chosen first.
    """

    num_tokens: NDArray[np.int64]
    reference_nats: Floats
    nats: Floats
    divergence: Floats
    reference_hits: Floats
    hits: Floats

    @property
    def increase(self) -> float:
        """The relative rise of perplexity: 0.02 is two per cent."""
        return math.expm1(float((self.nats - self.reference_nats).sum() / self.num_tokens.sum()))

    @property
    def mean_divergence(self) -> float:
        """Kullback-Leibler divergence of the changed from the original model, nats per token."""
        return float(self.divergence.sum() / self.num_tokens.sum())

    @property
    def accuracy_loss(self) -> float:
        """Share of tokens that the original's first choice names and the changed model's does not, net."""
        return float((self.reference_hits - self.hits).sum() / self.num_tokens.sum())

    def interval(self) -> tuple[float, float]:
        """The confidence interval of ``increase``, by a bootstrap over pieces."""
        return interval_of(np.expm1(self.drawn(self.nats - self.reference_nats)))

    def drawn(self, sums: Floats) -> Floats:
        """The mean per token of something summed over pieces (P,), over the draws of the bootstrap."""
        picked = draw_indices(len(sums))
        means: Floats = sums[picked].sum(axis=1) / self.num_tokens[picked].sum(axis=1)
        return means


@dataclass(frozen=True)
class Metric:
    """A loss that a tolerance can limit."""

    name: str
    description: str
    unit: str  # how people write it: "%" or "nats"
    loss: Callable[[Quality], float]
    _sums: Callable[[Quality], Floats]

    def show(self, value: float) -> str:
        """The value as people write it."""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f} nats"

    def bound(self, quality: Quality, anchor: Quality | None = None) -> float:
        """What the loss does not exceed, with confidence; one-sided.

        Perplexity is noisy where it hardly rises, the divergence is not. ``anchor`` is a quality of the same
        model at fewer bits on the same text, where the ratio of both shows clearly; that ratio times this
        quality's divergence is a second bound, and the smaller one holds. Each gets half of the error
        probability, and neither is less than what was measured. It takes for granted that less noise does
        not cost more perplexity per divergence.
        """
        own = quality.drawn(self._sums(quality))
        doubt = 1 - CONFIDENCE
        if self.name != PERPLEXITY.name:
            return float(np.quantile(own, 1 - doubt))
        if anchor is None:
            return math.expm1(float(np.quantile(own, 1 - doubt)))
        ratio = anchor.drawn(self._sums(anchor)) / np.maximum(anchor.drawn(anchor.divergence), 1e-12)
        controlled = ratio * quality.drawn(quality.divergence)
        bound = min(float(np.quantile(values, 1 - doubt / 2)) for values in (own, controlled))
        return max(math.expm1(bound), quality.increase)


PERPLEXITY = Metric(
    "perplexity", "perplexity rises", "%", lambda q: q.increase, lambda q: q.nats - q.reference_nats
)
METRICS = {
    metric.name: metric
    for metric in (
        PERPLEXITY,
        Metric("kl", "predictions diverge", "nats", lambda q: q.mean_divergence, lambda q: q.divergence),
        Metric(
            "accuracy",
            "next-token accuracy falls",
            "%",
            lambda q: q.accuracy_loss,
            lambda q: q.reference_hits - q.hits,
        ),
    )
}


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in METRICS:
        raise RequestError(f"no metric {name!r}; choose one of {', '.join(METRICS)}")
    return METRICS[name]


# Last hidden states (T, D) of the reference model by window.
States = dict[tuple[int, ...], FloatArray]


def compare(
    reference: Engine, changed: Engine, windows: Sequence[Sequence[int]], known: States | None = None
) -> Quality:
    """Run both models over the same windows; what ``losses_of`` finds, as a quality."""
    return quality_of(losses_of(reference, changed, windows, known))


def losses_of(
    reference: Engine, changed: Engine, windows: Sequence[Sequence[int]], known: States | None = None
) -> list[Floats]:
    """Sums of ``token_losses`` over the pieces of every window, (6,) each; no logits are kept.

    What the reference makes of a window is taken from ``known``, or added to it: T x D floats.
    """
    known = {} if known is None else known
    pieces: list[Floats] = []
    for window in windows:
        context, answer = reference.session.split(window)
        targets = np.asarray(answer)
        rows = []
        done = 0
        if tuple(window) not in known:
            known[tuple(window)] = np.concatenate(list(reference.session.states(window)))[: len(targets)]
        states = known[tuple(window)]
        for b in changed.session.answer_logits(context, answer):
            a = reference.session.head(states[done : done + len(b)])
            rows.append(token_losses(a, b, targets[done : done + len(b)]))
            done += len(b)
        pieces += pieces_of(np.concatenate(rows))
    return pieces


def pieces_of(losses: Floats) -> list[Floats]:
    """Sums over the pieces of one window's losses (T, 6)."""
    return [losses[start : start + PIECE].sum(axis=0) for start in range(0, len(losses), PIECE)]


def quality_of(pieces: Sequence[Floats]) -> Quality:
    """The quality whose pieces have these sums of ``token_losses``."""
    counts, *sums = np.array(pieces).T
    return Quality(counts.astype(np.int64), *sums)


def token_losses(a: FloatArray, b: FloatArray, targets: NDArray[np.int64]) -> Floats:
    """Of each token (T, 6): 1, nats of both, divergence of b from a, hits of both, from logits (T, V)."""
    log_a, log_b = _log_softmax(a), _log_softmax(b)
    index = np.arange(len(targets))
    columns = [
        np.ones(len(targets)),
        -log_a[index, targets],
        -log_b[index, targets],
        (np.exp(log_a) * (log_a - log_b)).sum(axis=1),
        a.argmax(axis=1) == targets,
        b.argmax(axis=1) == targets,
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _log_softmax(logits: FloatArray) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities
