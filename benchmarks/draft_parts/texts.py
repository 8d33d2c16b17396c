"""Prompts and answers of four kinds, cut from one long text or written by a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemoe.engine.session import Session

EDITED = 0.05  # of an edit's tokens
TEMPERATURE = 0.7  # of what a model writes itself
KINDS = ("copy", "edit", "story", "own")


def text_of(
    ids: Sequence[int], kind: str, length: int, turn: int, session: Session
) -> tuple[list[int], list[int]]:
    """A prompt and an answer, of so many tokens each; another piece of the text in every turn.

    ``session`` writes the answer that is the model's own.
    """
    start = turn * 2 * length % max(1, len(ids) - 2 * length)
    passage, rest = list(ids[start : start + length]), list(ids[start + length : start + 2 * length])
    rng = np.random.default_rng(turn)
    if kind == "edit":
        return passage, [rest[i] if rng.random() < EDITED else token for i, token in enumerate(passage)]
    if kind == "own":
        return passage, _written(session, passage, length, rng)
    return passage, passage if kind == "copy" else rest


def _written(session: Session, prompt: Sequence[int], length: int, rng: np.random.Generator) -> list[int]:
    """What a model writes after a prompt."""
    text, _ = session.open(prompt, length)
    logits, written = text.read(prompt), []
    for _ in range(length):
        weights = np.exp((logits - logits.max()).astype(np.float64) / TEMPERATURE)
        written.append(int(rng.choice(len(weights), p=weights / weights.sum())))
        logits = text.step(written[-1])
    text.close(is_kept=False)
    return written
