"""Perplexity by a sliding window: how surprised the model is by a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemoe.engine.session import Session
from edgemoe.errors import RequestError
from edgemoe.native import FloatArray
from edgemoe.progress import Progress


@dataclass(frozen=True)
class Score:
    """Mean negative log-likelihood in nats a token, over ``num_tokens`` predicted tokens."""

    nats_per_token: float
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """Exp of the mean negative log-likelihood; infinite where that is beyond any number."""
        return perplexity_of(self.nats_per_token)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "perplexity": self.perplexity,
            "nats_per_token": self.nats_per_token,
            "num_tokens": self.num_tokens,
        }


def perplexity_of(nats_per_token: float) -> float:
    """Exp of it; infinite where that is beyond any number."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


def score_text(
    session: Session,
    token_ids: Sequence[int],
    window: int,
    stride: int,
    progress: Progress | None = None,
) -> Score:
    """Score every token but the first, each once, with at least ``window - stride`` tokens before it.

    Windows start ``stride`` tokens apart; tokens that an earlier window has scored are context only.

    Raises:
        RequestError: fewer than two tokens, or window and stride that do not fit.
    """
    if len(token_ids) < 2:
        raise RequestError("a text needs at least two tokens to be scored")
    if not (2 <= window <= session.num_slots and 1 <= stride < window):
        raise RequestError(
            f"window {window} and stride {stride}: the window must be 2 to the context of"
            f" {session.num_slots}, the stride 1 to below the window"
        )
    total, scored = 0.0, 1
    for start in range(0, len(token_ids), stride):
        piece = token_ids[start : start + window]
        if start + len(piece) <= scored:
            break
        total += _nats(session, piece, scored - start)
        scored = start + len(piece)
        if progress is not None:
            progress(scored, len(token_ids))
    return Score(total / (len(token_ids) - 1), len(token_ids) - 1)


def _nats(session: Session, piece: Sequence[int], first: int) -> float:
    """Negative log-likelihood of the tokens of a piece from position ``first`` on."""
    return answer_nats(session, piece[:first], piece[first:])


def answer_nats(session: Session, context: Sequence[int], answer: Sequence[int]) -> float:
    """Negative log-likelihood of an answer to what comes before it.

    Raises:
        RequestError: they do not fit the context.
    """
    total, position = 0.0, 0
    for logits in session.answer_logits(context, answer):
        for row in logits:
            total -= log_probability(row, answer[position])
            position += 1
    return total


def log_probability(logits: FloatArray, token_id: int) -> float:
    """Natural logarithm of one token's softmax probability, logits (V,)."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[token_id] - math.log(np.exp(shifted).sum()))
