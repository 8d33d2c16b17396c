"""Drafts by a small model that has the tokenizer of the large one, and all of its experts in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgemoe.engine.drafting.drafter import NO_DRAFT, Draft, Room
from edgemoe.engine.scheduler import Cancelled
from edgemoe.errors import EdgeMoEError
from edgemoe.models.layer_state import MAX_TENTATIVE_ROWS
from edgemoe.native import FloatArray

if TYPE_CHECKING:
    from edgemoe.engine.sequence import Text
    from edgemoe.engine.session import Session

# Kinds by what a model makes of its own token: below 0.3 of the probability, below 0.5, and so on.
SURE = (0.3, 0.5, 0.7, 0.9)
SURE_KINDS = dict(enumerate((0.25, 0.4, 0.6, 0.8, 0.93)))
# The kind of a token that has not been guessed yet.
ANY = len(SURE_KINDS)
# After a token that is less sure nothing is guessed: those behind it would hold too seldom.
UNSURE = SURE[0]
# More tokens than a draft has are a prompt, or what has come since drafts were last worth it: read apart.
MOST_ALONG = MAX_TENTATIVE_ROWS + 1
# Weight of the newest draft in what a token takes.
NEWEST = 0.2


class Pace:
    """What guessing takes a model, in seconds a token; shared by all answers."""

    def __init__(self) -> None:
        self.token_s = 0.0  # 0: not known yet
        self.reading_s = 0.0  # of a token that is only read

    def guessed(self, num_tokens: int, took_s: float) -> None:
        """A draft of so many tokens, what had come since the last one read first, took so long."""
        self.token_s = _newest(self.token_s, took_s / num_tokens)

    def read(self, num_tokens: int, took_s: float) -> None:
        """Reading so many tokens took so long."""
        self.reading_s = _newest(self.reading_s, took_s / num_tokens)


@dataclass(frozen=True)
class DraftModel:
    """A small model that drafts for a large one."""

    session: Session
    vocab_size: int  # the large one's; both may pad theirs
    close: Callable[[], None]
    pace: Pace = field(default_factory=Pace)

    def drafter(self, room: Room) -> ModelDrafter:
        """For one answer."""
        return ModelDrafter(self, room)


class ModelDrafter:
    """The likeliest tokens by a model that reads along; its state follows the text by rewinding."""

    expected: Mapping[int, float] = {**SURE_KINDS, ANY: 0.7}
    unguessed: int | None = ANY

    def __init__(self, model: DraftModel, room: Room) -> None:
        """``room`` is that of the answer's text."""
        self._session = model.session
        self._vocab_size = model.vocab_size
        self._pace = model.pace
        self._room = room
        self._num_slots = min(room.num_tokens, model.session.num_slots)
        self._text: Text | None = None
        self._num_read = 0  # tokens of the text that its state agrees with, at least
        self._is_over = False

    @property
    def token_s(self) -> float:
        """See Drafter."""
        return self._pace.token_s

    def behind_s(self, num_tokens: int) -> float:
        """See Drafter."""
        return max(0, num_tokens - self._num_read) * self._pace.reading_s

    def draft(self, token_ids: list[int], token_id: int, most: int) -> Draft:
        """See Drafter; nothing where the small model cannot read the text."""
        read = [*token_ids, token_id]
        most = min(most, self._num_slots - len(read))
        if self._is_over or most <= 0 or not self._can_read(read):
            return NO_DRAFT
        try:
            return self._draft(read, most)
        except Cancelled:
            return NO_DRAFT
        except EdgeMoEError:  # storage failed, or the model is being closed: the answer does not need drafts
            self.close()
            return NO_DRAFT

    def close(self) -> None:
        """See Drafter."""
        self._is_over = True
        if self._text is not None:
            self._text.close()
            self._text = None

    def _can_read(self, token_ids: Sequence[int]) -> bool:
        """Whether the small model has these tokens, and room for the text without waiting for some."""
        if max(token_ids[self._num_read :]) >= self._session.vocab_size:
            return False
        return self._text is not None or self._session.has_room(self._num_slots)

    def _draft(self, read: list[int], most: int) -> Draft:
        num_new, began_s = len(read) - self._num_read, time.monotonic()
        text, logits = self._read(read)
        read_s = time.monotonic()
        tokens: list[int] = []
        kinds: list[int] = []
        while True:
            token_id, sureness = likeliest(logits)
            if token_id >= self._vocab_size:
                break
            tokens.append(token_id)
            kinds.append(kind_of(sureness))
            if len(tokens) == most or sureness < UNSURE:
                break
            logits = text.step(token_id)
        reading_s = 0.0
        if num_new > MOST_ALONG:
            reading_s = read_s - began_s
            self._pace.read(num_new, reading_s)
        if tokens:
            self._pace.guessed(len(tokens), time.monotonic() - began_s - reading_s)
        return Draft(tokens, kinds, reading_s)

    def _read(self, token_ids: list[int]) -> tuple[Text, FloatArray]:
        """The small model's text, made these tokens, and logits (V,) of what comes next."""
        if self._text is None:
            self._text, _ = self._session.open(token_ids, self._num_slots - len(token_ids))
        text = self._text

        def end_with_the_answer(*_: int) -> None:
            if self._room.is_cancelled():
                raise Cancelled

        logits = text.read(token_ids, end_with_the_answer)
        self._num_read = len(token_ids)
        return text, logits


def likeliest(logits: FloatArray) -> tuple[int, float]:
    """The likeliest token by logits (V,), and its probability."""
    token_id = int(np.argmax(logits))
    return token_id, 1.0 / float(np.exp(logits - logits[token_id]).sum())


def kind_of(sureness: float) -> int:
    """The kind of a token that its model gives this probability."""
    return sum(sureness >= limit for limit in SURE)


def _newest(mean: float, value: float) -> float:
    return value if mean == 0 else mean + NEWEST * (value - mean)
