"""Drafts by a model that takes time: noticed where they hold, and nearly free where they do not."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.uneven_text import UnevenText

from edgemoe.engine.drafting import drafts as drafts_module
from edgemoe.engine.drafting.drafter import Draft
from edgemoe.engine.drafting.drafts import DraftCounts, Drafts, Experience
from edgemoe.engine.drafting.governor import FIRST_LOSS, FIRST_TRIALS, StepShape, StepTimes
from edgemoe.engine.drafting.kinds import MODEL_MEMORY, Chances
from edgemoe.engine.drafting.model_drafter import ANY, SURE_KINDS, Pace, kind_of

SHAPE = StepShape(dense_bytes=300e6, expert_bytes=400e6, num_experts=256, top_k=8)
PROMPT, ANSWER = 128, 128
GUESS_S = 0.15  # of a step
# Of a token of the prompt: reading it is more than an answer may lose, and less than all may together.
READING_S = 3 / PROMPT
assert FIRST_LOSS < 3 < FIRST_TRIALS


class SlowDrafter:
    """Is right about a text as often as it is sure to be; adds what it takes to the text's clock."""

    expected: Mapping[int, float] = {**SURE_KINDS, ANY: 0.7}
    unguessed = ANY

    def __init__(self, text, token_ids, chance, rng, pace):
        self._text, self._token_ids, self._pace = text, token_ids, pace
        self._chance = chance
        self._is_right = rng.random(len(token_ids)) < chance
        self._num_read = 0

    @property
    def token_s(self):
        return self._pace.token_s

    def behind_s(self, num_tokens):
        return (num_tokens - self._num_read) * self._pace.reading_s

    def draft(self, token_ids, token_id, most):
        num_tokens = len(token_ids) + 1
        reading_s = (num_tokens - self._num_read) * READING_S if not self._num_read else 0.0
        self._num_read = num_tokens
        if reading_s:
            self._pace.read(num_tokens, reading_s)
        self._pace.guessed(most, most * GUESS_S)
        self._text.took += reading_s + most * GUESS_S
        places = range(num_tokens, min(num_tokens + most, len(self._token_ids)))
        guessed = [self._token_ids[i] if self._is_right[i] else -1 for i in places]
        return Draft(guessed, [kind_of(self._chance)] * len(guessed), reading_s)


def speeds(monkeypatch, chance):
    """Of 24 answers one after the other, over those without drafts."""
    rng, pace = np.random.default_rng(3), Pace()
    shared = Experience(StepTimes(SHAPE), Chances(SlowDrafter.expected, memory=MODEL_MEMORY), DraftCounts())
    found = []
    for _ in range(24):
        token_ids = list(range(PROMPT + ANSWER))
        text = UnevenText(SHAPE, token_ids[:PROMPT])
        monkeypatch.setattr(drafts_module, "time", SimpleNamespace(monotonic=lambda text=text: text.took))
        drafts = Drafts(SlowDrafter(text, token_ids, chance, rng, pace), shared)
        for token_id in token_ids[PROMPT:]:
            drafts.step(text, token_id)
        found.append(ANSWER / text.took)
    return found


def test_guesses_that_hold_are_noticed_though_reading_the_prompt_is_dear(monkeypatch):
    assert statistics.median(speeds(monkeypatch, 0.9)) > 1.05


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.6])
def test_guesses_that_do_not_hold_cost_nearly_nothing(monkeypatch, chance):
    found = speeds(monkeypatch, chance)
    assert statistics.median(found) > 0.995
    assert statistics.mean(found) > 0.98
    assert min(found) > 0.9, "an answer of the first, when nothing is known"
