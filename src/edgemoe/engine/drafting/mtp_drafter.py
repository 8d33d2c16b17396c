"""Drafts by a model's own layer for further tokens, from what the model makes of every token of the text.

D: width.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from edgemoe.engine.drafting.drafter import NO_DRAFT, Draft, Room
from edgemoe.engine.drafting.model_drafter import (
    ANY,
    MOST_ALONG,
    SURE_KINDS,
    UNSURE,
    Pace,
    kind_of,
    likeliest,
)
from edgemoe.engine.scheduler import Cancelled
from edgemoe.errors import EdgeMoEError
from edgemoe.models import ModelSpec, MtpLayer, SequenceState
from edgemoe.models.layer_state import MAX_SEGMENT_ROWS, MAX_TENTATIVE_ROWS
from edgemoe.native import FloatArray

# Rows that wait to be taken in; of more all are taken in but those that may yet be taken back.
MOST_WAITING = MAX_SEGMENT_ROWS


@dataclass
class StateRoom:
    """Memory for the states of all answers that are drafted. Thread-safe."""

    num_bytes: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, num_bytes: int) -> bool:
        """Take so much, if there is so much left."""
        with self._lock:
            has_room = num_bytes <= self.num_bytes
            self.num_bytes -= num_bytes if has_room else 0
            return has_room

    def release(self, num_bytes: int) -> None:
        """Give so much back."""
        with self._lock:
            self.num_bytes += num_bytes


@dataclass(frozen=True)
class MtpModel:
    """A model's layer for further tokens, and what its answers share of it."""

    layer: MtpLayer
    spec: ModelSpec  # of the layer alone
    context: int
    kv_format: str
    turn: Callable[[], AbstractContextManager[None]]  # to have the model to oneself
    room: StateRoom
    close: Callable[[], None]
    pace: Pace = field(default_factory=Pace)

    def drafter(self, room: Room) -> MtpDrafter:
        """For one answer."""
        return MtpDrafter(self, min(room.num_tokens, self.context))


class MtpDrafter:
    """The likeliest tokens by the layer, as far as it has seen the text: what a state that was kept of an
    earlier answer has of it is not seen.
    """

    expected: Mapping[int, float] = {**SURE_KINDS, ANY: 0.7}
    unguessed: int | None = ANY

    def __init__(self, model: MtpModel, num_slots: int) -> None:
        """``num_slots``: the most tokens that the text may have."""
        self._model = model
        self._num_slots = num_slots
        self._num_bytes = model.spec.state_num_bytes(model.context, model.kv_format, num_slots)
        self._state: SequenceState | None = None
        self._base = 0  # the place in the text of the state's first row
        self._first = 0  # that of the first row that waits
        self._rows: FloatArray = np.empty((0, model.spec.width), np.float32)
        self._token_ids: list[int] = []  # of the rows that wait
        self._is_over = False

    @property
    def token_s(self) -> float:
        """See Drafter."""
        return self._model.pace.token_s

    def behind_s(self, num_tokens: int) -> float:
        """See Drafter."""
        return len(self._rows) * self._model.pace.reading_s

    def observe(self, first: int, token_ids: Sequence[int], hidden: FloatArray) -> None:
        """The model has made ``hidden`` (T, D) of these tokens, which stand in the text from ``first`` on."""
        if self._is_over:
            return
        if not self._first <= first <= self._first + len(self._rows) or self._state is None:
            self._restart(first)
        kept = first - self._first
        self._rows = np.concatenate([self._rows[:kept], hidden])
        self._token_ids[kept:] = token_ids
        if len(self._rows) > MOST_WAITING:
            num_rows = len(self._rows) - MAX_TENTATIVE_ROWS
            self._guarded(lambda: self._take_in(self._token_ids[1 : num_rows + 1], num_rows))

    def draft(self, token_ids: list[int], token_id: int, most: int) -> Draft:
        """See Drafter."""
        num_rows = len(token_ids) - self._first
        if self._is_over or most <= 0 or not 0 < num_rows <= len(self._rows):
            return NO_DRAFT
        following = [*token_ids[self._first + 1 :], token_id]
        return self._guarded(lambda: self._draft(following, num_rows, most)) or NO_DRAFT

    def close(self) -> None:
        """See Drafter."""
        self._is_over = True
        if self._state is not None:
            self._state = None
            self._model.room.release(self._num_bytes)

    def __del__(self) -> None:
        self.close()

    def _restart(self, first: int) -> None:
        """Know nothing of the text before this place."""
        if self._state is None:
            if not self._model.room.claim(self._num_bytes):
                self._is_over = True
                return
            self._state = self._model.spec.new_state(self._model.context, self._model.kv_format)
        self._base = self._first = first
        self._rows, self._token_ids = self._rows[:0], []

    def _guarded(self, run: Callable[[], Draft]) -> Draft | None:
        """What ``run`` gives with the model to itself; the answer goes on without drafts if it fails."""
        try:
            with self._model.turn():
                return run()
        except Cancelled:
            return None
        except EdgeMoEError:
            self.close()
            return None

    def _take_in(self, following: Sequence[int], num_rows: int) -> Draft:
        """The first rows that wait, each with the token that follows it; nothing is guessed."""
        self._advance(following, num_rows)
        return NO_DRAFT

    def _advance(self, following: Sequence[int], num_rows: int) -> tuple[FloatArray, FloatArray]:
        state = self._state
        assert state is not None, "rows wait for a state"
        if state.rewind(self._first - self._base) < self._first - self._base:
            state.rewind(0)  # its window cannot go back so far
            self._base = self._first
        rows, self._rows = self._rows[:num_rows], self._rows[num_rows:]
        del self._token_ids[:num_rows]
        self._first += num_rows
        return self._model.layer.step(np.asarray(following, np.int32), rows, state)

    def _draft(self, following: Sequence[int], num_rows: int, most: int) -> Draft:
        pace, began_s = self._model.pace, time.monotonic()
        logits, hidden = self._advance(following, num_rows)
        reading_s = 0.0
        if num_rows > MOST_ALONG:
            reading_s = time.monotonic() - began_s
            pace.read(num_rows, reading_s)
        tokens: list[int] = []
        kinds: list[int] = []
        while True:
            token_id, sureness = likeliest(logits)
            tokens.append(token_id)
            kinds.append(kind_of(sureness))
            if len(tokens) == most or sureness < UNSURE or self._state is None:
                break
            logits, hidden = self._model.layer.step(np.array([token_id], np.int32), hidden, self._state)
        pace.guessed(len(tokens), time.monotonic() - began_s - reading_s)
        return Draft(tokens, kinds, reading_s)
