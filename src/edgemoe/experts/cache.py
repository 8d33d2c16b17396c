"""The expert cache: experts in memory, in one arena of fixed size.

No more memory is taken than at construction. An expert is absent, loading, or resident; one in use is pinned
and never evicted.
"""

from __future__ import annotations

from edgemoe import native
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.policies import UseStatistics
from edgemoe.experts.residency import Residency
from edgemoe.native import EvictionPolicy


class ExpertCache(native.ExpertCache):
    """Experts by their number in the catalog, in at most ``capacity_bytes``; see ``native.streaming``."""

    def __init__(self, catalog: Catalog, capacity_bytes: int, policy: EvictionPolicy) -> None:
        self.catalog = catalog
        self.statistics = UseStatistics(catalog)
        self.residency = Residency(self.statistics, policy, capacity_bytes)
        super().__init__(self.residency)
