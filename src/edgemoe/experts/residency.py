"""Which experts are in memory, counted in bytes, and who leaves for whom.

Bookkeeping only: the expert cache adds buffers to it, the simulation none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemoe.experts.catalog import Catalog
from edgemoe.experts.policies import EvictionPolicy, UseStatistics

# Part of an even share of the capacity that every layer keeps: a layer whose turn is far keeps something,
# one whose experts are used evenly may have more.
FLOOR_SHARE = 0.25


class Residency:
    """At most ``capacity_bytes`` of experts, loading or resident. Used by one thread.

    An expert in use is pinned and never leaves. One that is expected soon is reserved: it leaves only
    for an expert that is needed now. A layer keeps ``floor_share`` of an even share against other layers.
    What an encoder has done with leaves first, whatever the policy.
    """

    def __init__(
        self,
        catalog: Catalog,
        capacity_bytes: int,
        policy: EvictionPolicy,
        statistics: UseStatistics,
        floor_share: float = FLOOR_SHARE,
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._statistics = statistics
        self.capacity_bytes = capacity_bytes
        self._floor_bytes = int(floor_share * capacity_bytes / catalog.num_layers)
        self._used_bytes = 0
        self._layer_bytes = [0] * catalog.num_layers
        # Sorting takes longer than anything else here, and worth changes little from layer to layer.
        self._order: list[int] = []  # residents, the cheapest last
        self._order_clock = -(1 << 60)  # when they were sorted
        self._sizes: list[int] = catalog.num_bytes.tolist()
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
        num_bytes = self._sizes[expert]
        missing = self._used_bytes + num_bytes - self.capacity_bytes
        leaving = self._choose(missing, expert, is_demand) if missing > 0 else []
        if leaving is None:
            return None
        for victim in leaving:
            self.drop(victim)
            self.is_resident[victim] = False
        self._used_bytes += num_bytes
        self._layer_bytes[self._catalog.position_of(expert)] += num_bytes
        return leaving

    def drop(self, expert: int) -> None:
        """An expert that was loading, or is resident, gives its bytes back."""
        num_bytes = self._sizes[expert]
        self._used_bytes -= num_bytes
        self._layer_bytes[self._catalog.position_of(expert)] -= num_bytes

    def admit(self, expert: int) -> None:
        """An expert has loaded."""
        self.is_resident[expert] = True

    def _choose(self, missing_bytes: int, expert: int, is_demand: bool) -> list[int] | None:
        leaving = self._cheapest(missing_bytes, expert)
        if leaving is None and is_demand:
            # Better to lose what is expected, or a layer's last experts, than not to run.
            candidates = np.flatnonzero(self.is_resident & ~self.is_pinned)
            order = candidates[np.argsort(self._worth(candidates), kind="stable")]
            enough = int(np.searchsorted(np.cumsum(self._catalog.num_bytes[order]), missing_bytes))
            leaving = None if enough == len(order) else [int(i) for i in order[: enough + 1]]
        return leaving

    def _cheapest(self, missing_bytes: int, expert: int) -> list[int] | None:
        """Experts worth least whose bytes are enough together; None if all are not enough."""
        is_new = self._refresh_order(is_due=False)
        leaving, freed_bytes = self._pop(missing_bytes, expert)
        if freed_bytes < missing_bytes and not is_new:
            self._refresh_order(is_due=True)
            leaving, freed_bytes = self._pop(missing_bytes, expert)
        return leaving if freed_bytes >= missing_bytes else None

    def _pop(self, missing_bytes: int, expert: int) -> tuple[list[int], int]:
        """Take experts off the order until they free enough, and how much they do."""
        own_layer = self._catalog.position_of(expert)
        leaving: list[int] = []
        freed_bytes = 0
        while self._order and freed_bytes < missing_bytes:
            victim = self._order.pop()
            layer = self._catalog.position_of(victim)
            may_leave = (
                self.is_resident[victim]
                and not self.is_pinned[victim]
                and not self.is_reserved[victim]
                and (layer == own_layer or self._layer_bytes[layer] > self._floor(layer))
                and self._statistics.last_use[victim] <= self._order_clock
            )
            if may_leave:
                leaving.append(victim)
                freed_bytes += self._sizes[victim]
        return leaving, freed_bytes

    def _refresh_order(self, is_due: bool) -> bool:
        """Sort the residents by worth, unless that was done not long ago; True if done now."""
        clock = self._statistics.clock
        is_short = self._policy.depends_on_layer or self._catalog.first_step
        valid_layers = 1 if is_short else self._catalog.num_layers
        if not is_due and clock - self._order_clock < valid_layers:
            return False
        candidates = np.flatnonzero(self.is_resident)
        worth = self._worth(candidates)
        # The cheapest last, where they are popped; of equals the earlier leaves first.
        self._order = candidates[np.argsort(worth, kind="stable")[::-1]].tolist()
        self._order_clock = clock
        return True

    def _worth(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        worth = self._policy.worth(self._statistics, candidates)
        if self._catalog.first_step:
            worth = np.where(candidates < self._statistics.num_over(), -np.inf, worth)
        return worth

    def _floor(self, layer: int) -> int:
        return 0 if self._statistics.is_over(layer) else self._floor_bytes
