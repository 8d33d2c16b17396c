"""A text whose steps take what bytes say, times luck, by a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from edgemoe.engine.drafting.governor import StepShape


class UnevenText:
    """Stands for ``Text``. ``took`` counts its steps in times of one token's, and what others add to it."""

    most_drafted = 8

    def __init__(
        self,
        shape: StepShape,
        prompt: Sequence[int],
        waiting_share: float = 0.0,
        luck: Callable[[], float] = lambda: 1.0,
    ):
        self.token_ids = list(prompt)
        self._shape = shape
        self._waiting_share, self._luck = waiting_share, luck
        self._ahead: list[int] = []
        self.took = 0.0
        self.last_step: SimpleNamespace | None = None

    def has_ahead(self, token_id: int) -> bool:
        """As Text has it."""
        return self._ahead[:1] == [token_id]

    def step(self, token_id: int, drafted: Sequence[int] = ()) -> None:
        """As Text has it, but for the logits."""
        self.token_ids.append(token_id)
        if self.has_ahead(token_id):
            self._ahead.pop(0)
            return
        self._ahead = list(drafted)
        computed, waited = (self._shape.cost(1 + len(drafted), share) for share in (0.0, 1.0))
        waited *= self._luck() * self._waiting_share
        took = computed * (1 - self._waiting_share) + waited
        self.took += took
        counts = SimpleNamespace(waited_s=waited)
        self.last_step = SimpleNamespace(took_s=took, has_company=False, counts=counts)
