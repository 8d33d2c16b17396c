"""How many threads are worth starting: by the processors that there are, and by the time on them."""

from __future__ import annotations

import math

import edgemoe._native as _native
from edgemoe.cgroups import allowed_processors


def usable_processors() -> int:
    """Logical processors that this process may use; fewer where a cgroup limits its time on them."""
    allowed = allowed_processors()
    usable = _native.usable_processors()
    return usable if allowed is None else min(usable, math.ceil(allowed))


def keep_to_quota() -> None:
    """Compute on no more threads than the cgroup's time is enough for: more would use it up, and then all of
    them stand still together until the next period.
    """
    count = usable_processors()
    if count < _native.usable_processors():
        _native.set_num_threads(count)
