"""What an answer cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)  # not frozen: such take four times as long to make, and each token has its own
class Stats:
    """Counts since the model was loaded, and memory of the process; sizes in bytes.

    A miss is an expert that was not resident when its router asked for it, though it may have been on
    its way. ``wasted_bytes`` were read ahead and not used; ``waited_s`` is time spent waiting for reads.
    ``joules`` are of the whole machine where ``energy_source`` is a counter, else an estimate of this process
    (engine/energy.py). Of a store at a URL ``far_bytes`` came over the network and ``tier_bytes`` from its
    copy on this disk.
    ``num_drafted`` tokens were guessed and computed ahead of their turn, ``num_accepted`` of them were right.
    """

    expert_hits: int
    expert_misses: int
    bytes_read: int
    wasted_bytes: int
    waited_s: float
    resident_bytes: int
    budget_bytes: int
    far_bytes: int = 0
    tier_bytes: int = 0
    joules: float = 0.0
    energy_source: str = "estimate"
    num_drafted: int = 0
    num_accepted: int = 0

    @property
    def hit_share(self) -> float:
        """Uses of experts that were resident, as a share of all."""
        uses = self.expert_hits + self.expert_misses
        return self.expert_hits / uses if uses else 0.0

    @property
    def accepted_share(self) -> float:
        """Drafted tokens that were right, as a share of all."""
        return self.num_accepted / self.num_drafted if self.num_drafted else 0.0
