"""A drafter that knows the answer and makes mistakes on purpose: drafts hold as often as a test likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

import edgemoe
from edgemoe.engine.drafting import Drafting
from edgemoe.engine.drafting.drafter import Draft
from edgemoe.engine.drafting.governor import StepShape

SHAPE = StepShape(dense_bytes=1.0, expert_bytes=1.0, num_experts=8, top_k=2)


class KnowingDrafter:
    """Drafts ``answer``, which follows ``num_prompt`` tokens; one token of ``mistake_every`` is wrong."""

    expected: ClassVar = {0: 0.5}
    unguessed = None
    token_s = 0.0

    def behind_s(self, num_tokens: int) -> float:
        """See Drafter."""
        return 0.0

    def __init__(self, answer: Sequence[int], num_prompt: int, mistake_every: int, seed: int = 0) -> None:
        self._answer = list(answer)
        self._num_prompt = num_prompt
        self._mistake_every = mistake_every
        self._random = np.random.default_rng(seed)
        self.lengths: list[int] = []

    def draft(self, token_ids: list[int], token_id: int, most: int) -> Draft:
        """See Drafter; of any length up to ``most``."""
        done = len(token_ids) + 1 - self._num_prompt
        count = int(self._random.integers(0, most + 1))
        drafted = self._answer[done : done + count]
        for i in range(len(drafted)):
            if self._random.integers(0, self._mistake_every) == 0:
                drafted[i] = (drafted[i] + 1) % 64
        self.lengths.append(len(drafted))
        return Draft(drafted, [0] * len(drafted))

    def close(self) -> None:
        """See Drafter."""


def with_drafter(model: edgemoe.Model, drafter: KnowingDrafter, num_drafted: int | None = 8) -> edgemoe.Model:
    """The same model, whose answers are drafted so."""
    drafting = Drafting(lambda _: drafter, SHAPE, num_drafted)
    return edgemoe.Model(replace(model.engine, drafting=drafting))


def check_drafts_change_nothing(
    model: edgemoe.Model, prompt: Sequence[int], *, mistake_every: int = 3, **options: object
) -> tuple[int, int]:
    """An answer with and without drafts is the same, logprobs too; tokens drafted and accepted."""
    alone = model.generate(prompt, **options)
    drafter = KnowingDrafter(alone.token_ids, len(prompt), mistake_every)
    drafted = with_drafter(model, drafter).generate(prompt, **options)
    assert drafted.token_ids == alone.token_ids
    assert drafted.text == alone.text
    assert drafted.logprobs == alone.logprobs
    assert drafted.finish_reason == alone.finish_reason
    assert drafted.num_drafted == sum(drafter.lengths)
    return drafted.num_drafted, drafted.num_accepted
