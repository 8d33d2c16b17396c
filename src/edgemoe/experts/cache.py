"""The expert cache: experts in memory, in slots of one arena of fixed size.

No memory is taken after construction. An expert is absent, loading, or resident; one in use is pinned
and never evicted.
"""

from __future__ import annotations

from edgemoe.experts.arena import Slot, SlotArena
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.policies import UseStatistics
from edgemoe.experts.residency import Residency
from edgemoe.native import EvictionPolicy, ExpertWeights


class ExpertCache:
    """Experts by their number in the catalog, in at most ``capacity_bytes``. Used by one thread."""

    def __init__(self, catalog: Catalog, capacity_bytes: int, policy: EvictionPolicy) -> None:
        self.catalog = catalog
        self._sizes: list[int] = catalog.num_bytes.tolist()
        self._arena = SlotArena(capacity_bytes, self._sizes)
        self._slot_sizes = [self._arena.slot_num_bytes(size) for size in self._sizes]
        self._holds_all = capacity_bytes >= sum(self._slot_sizes)
        self.statistics = UseStatistics(catalog, num_bytes=self._slot_sizes)
        self.residency = Residency(self.statistics, policy, capacity_bytes)
        self._slots: dict[int, Slot] = {}
        self._weights: dict[int, ExpertWeights] = {}

    def __contains__(self, expert: int) -> bool:
        return expert in self._weights

    def __len__(self) -> int:
        return len(self._weights)

    @property
    def is_complete(self) -> bool:
        """True when every expert is resident."""
        return len(self._weights) == len(self.catalog)

    @property
    def holds_all(self) -> bool:
        """Whether there is room for every expert: none will ever be evicted."""
        return self._holds_all

    def has_free_room(self, expert: int) -> bool:
        """Whether an expert could be loaded without evicting another."""
        return self.residency.used_bytes + self._slot_sizes[expert] <= self.residency.capacity_bytes

    def weights(self, expert: int) -> ExpertWeights:
        """A resident expert, to be used before anything else is loaded."""
        return self._weights[expert]

    def reserve(self, expert: int, is_demand: bool = True) -> Slot | None:
        """A slot to load an expert into, evicting if need be; None when too little may leave."""
        leaving = self.residency.take(expert, is_demand)
        if leaving is None:
            return None
        for victim in leaving:
            self._arena.give(self._slots.pop(victim))
            del self._weights[victim]
        slot = self._slots[expert] = self._arena.take(self._sizes[expert])
        return slot

    def admit(self, expert: int, weights: ExpertWeights) -> None:
        """A loading expert has become resident; ``weights`` are views into its slot."""
        self._weights[expert] = weights
        self.residency.admit(expert)

    def release(self, expert: int) -> None:
        """A load that failed or was cancelled gives its slot back."""
        self.residency.drop(expert)
        self._arena.give(self._slots.pop(expert))
