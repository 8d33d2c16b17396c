"""Which experts are in memory and where, and who leaves for whom.

Bookkeeping only: the expert cache adds memory to it, the simulation none.
"""

from __future__ import annotations

from edgemoe import native
from edgemoe.experts.policies import UseStatistics
from edgemoe.native import EvictionPolicy

# Part of an even share of the capacity that every layer keeps: a layer whose turn is far keeps something,
# one whose experts are used evenly may have more.
FLOOR_SHARE = 0.25


class Residency(native.Residency):
    """At most ``capacity_bytes`` of experts, loading or resident. Used by one thread.

    ``take(expert, is_demand)`` makes room for an expert that is about to load and returns those that leave
    for it; None, and nothing leaves, where there is not room enough. Then ``admit`` it, or ``drop`` it. An
    expert in use is pinned and never leaves. One that is expected soon is reserved: it leaves only for an
    expert that is needed now. Records do not move, so those leave that lie side by side and are worth least
    together. A layer keeps ``floor_share`` of an even share against other layers. What an
    encoder has done with leaves first, whatever the policy.
    """

    def __init__(
        self,
        statistics: UseStatistics,
        policy: EvictionPolicy,
        capacity_bytes: int,
        floor_share: float = FLOOR_SHARE,
    ) -> None:
        super().__init__(statistics, policy, capacity_bytes, floor_share)
