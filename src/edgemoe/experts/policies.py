"""Which resident expert leaves when another needs its slot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from edgemoe.errors import RequestError

ExpertKey = tuple[int, int]


class EvictionPolicy(Protocol):
    """Keeps an order among resident experts (layer, expert). Used by one thread."""

    def admit(self, key: ExpertKey) -> None:
        """An expert became resident."""
        ...

    def touch(self, key: ExpertKey) -> None:
        """A resident expert is used."""
        ...

    def remove(self, key: ExpertKey) -> None:
        """A resident expert left."""
        ...

    def choose(self, may_leave: Callable[[ExpertKey], bool]) -> ExpertKey | None:
        """The expert to evict next among those that may leave; None if there is none."""
        ...


class LRU:
    """The least recently used leaves first."""

    def __init__(self) -> None:
        self._order: OrderedDict[ExpertKey, None] = OrderedDict()

    def admit(self, key: ExpertKey) -> None:
        """See EvictionPolicy."""
        self._order[key] = None

    def touch(self, key: ExpertKey) -> None:
        """See EvictionPolicy."""
        self._order.move_to_end(key)

    def remove(self, key: ExpertKey) -> None:
        """See EvictionPolicy."""
        del self._order[key]

    def choose(self, may_leave: Callable[[ExpertKey], bool]) -> ExpertKey | None:
        """See EvictionPolicy; costs the number of pinned experts that are older."""
        return next((key for key in self._order if may_leave(key)), None)


POLICIES: Mapping[str, Callable[[], EvictionPolicy]] = {"lru": LRU}


def make_policy(name: str) -> EvictionPolicy:
    """A new policy of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in POLICIES:
        raise RequestError(f"no eviction policy {name!r}; choose one of {', '.join(POLICIES)}")
    return POLICIES[name]()
