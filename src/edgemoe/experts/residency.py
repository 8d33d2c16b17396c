"""Which experts are in memory, counted in bytes, and who leaves for whom.

Bookkeeping only: the expert cache adds buffers to it, the simulation none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemoe.experts.catalog import Catalog, Index
from edgemoe.experts.policies import EvictionPolicy, UseStatistics


class Residency:
    """At most ``capacity_bytes`` of experts, loading or resident. Used by one thread.

    An expert in use is pinned and never leaves. One that is expected soon is reserved: it leaves only
    for an expert that is needed now. A layer keeps at least ``floor_bytes`` of its experts against other
    layers.
    """

    def __init__(
        self, catalog: Catalog, capacity_bytes: int, policy: EvictionPolicy, statistics: UseStatistics
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._statistics = statistics
        self.capacity_bytes = capacity_bytes
        # A quarter of an even share: a layer whose turn is far keeps something, a skewed one may have more.
        self._floor_bytes = capacity_bytes // (4 * catalog.num_layers)
        self._used_bytes = 0
        self._layer_bytes = np.zeros(catalog.num_layers, np.int64)
        self.is_resident: NDArray[np.bool_] = np.zeros(len(catalog), np.bool_)
        self.is_pinned: NDArray[np.bool_] = np.zeros(len(catalog), np.bool_)
        self.is_reserved: NDArray[np.bool_] = np.zeros(len(catalog), np.bool_)

    @property
    def used_bytes(self) -> int:
        """Bytes of experts loading or resident."""
        return self._used_bytes

    def take(self, expert: int, is_demand: bool = True) -> list[int] | None:
        """Make room for an expert that is about to load: the experts that leave for it.

        None, and nothing leaves, if there is not room enough beside those pinned (and, unless it is
        ``is_demand``, those reserved).
        """
        num_bytes = int(self._catalog.num_bytes[expert])
        missing = self._used_bytes + num_bytes - self.capacity_bytes
        leaving = self._choose(missing, expert, is_demand) if missing > 0 else []
        if leaving is None:
            return None
        for victim in leaving:
            self.drop(victim)
            self.is_resident[victim] = False
        self._used_bytes += num_bytes
        self._layer_bytes[self._catalog.layer_position[expert]] += num_bytes
        return leaving

    def drop(self, expert: int) -> None:
        """An expert that was loading, or is resident, gives its bytes back."""
        num_bytes = int(self._catalog.num_bytes[expert])
        self._used_bytes -= num_bytes
        self._layer_bytes[self._catalog.layer_position[expert]] -= num_bytes

    def admit(self, expert: int) -> None:
        """An expert has loaded."""
        self.is_resident[expert] = True

    def _choose(self, missing_bytes: int, expert: int, is_demand: bool) -> list[int] | None:
        may_leave = self.is_resident & ~self.is_pinned
        candidates = np.flatnonzero(may_leave & ~self.is_reserved)
        leaving = self._cheapest(candidates, missing_bytes, expert, self._floor_bytes)
        if leaving is None and is_demand:
            # Better to lose what is expected, or a layer's last experts, than not to run.
            leaving = self._cheapest(np.flatnonzero(may_leave), missing_bytes, expert, 0)
        return leaving

    def _cheapest(
        self, candidates: Index, missing_bytes: int, expert: int, floor_bytes: int
    ) -> list[int] | None:
        """Candidates worth least whose bytes are enough together; None if all are not enough."""
        if floor_bytes and len(candidates):
            layers = self._catalog.layer_position[candidates]
            has_spare = self._layer_bytes > floor_bytes
            has_spare[self._catalog.layer_position[expert]] = True
            candidates = candidates[has_spare[layers]]
        if not len(candidates):
            return None
        worth = self._policy.worth(self._statistics, candidates)
        first = int(candidates[int(np.argmin(worth))])
        if self._catalog.num_bytes[first] >= missing_bytes:
            return [first]
        order = candidates[np.argsort(worth, kind="stable")]
        enough = int(np.searchsorted(np.cumsum(self._catalog.num_bytes[order]), missing_bytes))
        return None if enough == len(order) else [int(i) for i in order[: enough + 1]]
