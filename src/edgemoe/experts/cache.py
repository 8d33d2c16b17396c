"""The expert cache: experts in memory, in slots of one arena of fixed size.

No memory is taken after construction. An expert is absent, loading, or resident; one in use is pinned
and never evicted.
"""

from __future__ import annotations

from edgemoe import native
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.policies import UseStatistics
from edgemoe.experts.residency import Residency
from edgemoe.native import EvictionPolicy, SlotArena


class ExpertCache(native.ExpertCache):
    """Experts by their number in the catalog, in at most ``capacity_bytes``; see ``native.streaming``."""

    def __init__(self, catalog: Catalog, capacity_bytes: int, policy: EvictionPolicy) -> None:
        sizes: list[int] = catalog.num_bytes.tolist()
        arena = SlotArena(capacity_bytes, sizes)
        self.catalog = catalog
        self._slot_sizes = [arena.slot_num_bytes(size) for size in sizes]
        self.statistics = UseStatistics(catalog, num_bytes=self._slot_sizes)
        self.residency = Residency(self.statistics, policy, capacity_bytes)
        super().__init__(self.residency, arena, sizes)

    def has_free_room(self, expert: int) -> bool:
        """Whether an expert could be loaded without evicting another."""
        return self.residency.used_bytes + self._slot_sizes[expert] <= self.residency.capacity_bytes
