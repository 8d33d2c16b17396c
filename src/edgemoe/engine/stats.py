"""What an answer cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the model was loaded, and memory of the process; sizes in bytes."""

    expert_hits: int
    expert_misses: int
    bytes_read: int
    resident_bytes: int
    budget_bytes: int

    @property
    def hit_share(self) -> float:
        """Uses of experts that were resident, as a share of all."""
        uses = self.expert_hits + self.expert_misses
        return self.expert_hits / uses if uses else 0.0
