"""Guesses that are right as often as told, by a layer for further tokens or a small store of random weights.

Both compute all that they would compute, and are told what to say: at each token of the text the right one
with a given probability, else another, and that they are as sure as that. V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgemoe.engine.drafting import Drafting, DraftModel, MtpModel
from edgemoe.engine.drafting.governor import StepShape
from edgemoe.engine.sequence import Text
from edgemoe.engine.session import Session
from edgemoe.models import MtpLayer, SequenceState
from edgemoe.native import FloatArray

# What a guess is sure of at most: 1 has no logit.
MOST_SURE = 0.999


class Prompter:
    """Knows the text that is followed, and which of its tokens will be guessed right."""

    def __init__(self, vocab_size: int, chance: float) -> None:
        self._chance = chance
        self._logits: FloatArray = np.zeros(vocab_size, np.float32)
        self._token_id = 0  # that it says now
        sureness = min(max(chance, 2 / vocab_size), MOST_SURE)
        self._logit = log(sureness / (1 - sureness) * (vocab_size - 1))
        self._said: Sequence[int] = ()

    def follow(self, token_ids: Sequence[int], seed: int) -> None:
        """Choose what is to be said at each place of this text."""
        rng = np.random.default_rng(seed)
        is_right = rng.random(len(token_ids)) < self._chance
        others = np.roll(token_ids, int(rng.integers(1, len(token_ids))))
        others = np.where(others == token_ids, (others + 1) % len(self._logits), others)
        self._said = np.where(is_right, token_ids, others).tolist()

    def logits(self, position: int) -> FloatArray:
        """Logits (V,) that say what is to be said at a place of the text; good until the next ones."""
        self._logits[self._token_id] = 0
        self._token_id = self._said[position] if position < len(self._said) else 0
        self._logits[self._token_id] = self._logit
        return self._logits


def told(
    model: DraftModel | MtpModel, prompter: Prompter, shape: StepShape, num_drafted: int | None
) -> Drafting:
    """Drafting by a model that is told what to say; knows nothing yet of what steps take."""
    if isinstance(model, MtpModel):
        layer = cast(MtpLayer, _ToldLayer(model.layer, prompter))
        return Drafting(replace(model, layer=layer).drafter, shape, num_drafted)
    session = cast(Session, _ToldSession(model.session, prompter))
    return Drafting(replace(model, session=session).drafter, shape, num_drafted)


@dataclass(frozen=True)
class _ToldLayer:
    """The layer's first row is that of the text's first token, joined with the second."""

    layer: MtpLayer
    prompter: Prompter

    def step(
        self, token_ids: NDArray[np.int32], hidden: FloatArray, state: SequenceState
    ) -> tuple[FloatArray, FloatArray]:
        _, handed_on = self.layer.step(token_ids, hidden, state)
        return self.prompter.logits(state.length + 1), handed_on


@dataclass(frozen=True)
class _ToldSession:
    session: Session
    prompter: Prompter

    @property
    def num_slots(self) -> int:
        return self.session.num_slots

    @property
    def vocab_size(self) -> int:
        return self.session.vocab_size

    def has_room(self, num_tokens: int) -> bool:
        return self.session.has_room(num_tokens)

    def open(self, prompt: Sequence[int], max_tokens: int) -> tuple[_ToldText, list[int]]:
        text, begins_with = self.session.open(prompt, max_tokens)
        return _ToldText(text, self.prompter), begins_with


@dataclass(frozen=True)
class _ToldText:
    text: Text
    prompter: Prompter

    def read(self, token_ids: Sequence[int], *progress) -> FloatArray:
        self.text.read(token_ids, *progress)
        return self.prompter.logits(len(token_ids))

    def step(self, token_id: int) -> FloatArray:
        self.text.step(token_id)
        return self.prompter.logits(len(self.text.token_ids))

    def close(self) -> None:
        self.text.close()
