"""A model of storage for simulations: a line of given bandwidth; reads arrive a latency after their turn."""

from __future__ import annotations

import bisect

from edgemoe.experts import Catalog, Residency
from edgemoe.store import Device


class StorageLine:
    """Storage that carries one read after the other, the lowest priority number first; see Reads."""

    def __init__(self, catalog: Catalog, residency: Residency, device: Device) -> None:
        self._catalog, self._residency, self._device = catalog, residency, device
        self._queue: list[tuple[int, int, int, float]] = []  # priority, order, expert, when submitted
        self._arriving: list[tuple[float, int]] = []
        self._under_way: set[int] = set()
        self._order = 0
        self._free_s = 0.0
        self.now_s = 0.0
        self._demanded: set[int] = set()
        self.pending_bytes = 0
        self.bytes_read = 0
        self.waited_s = 0.0  # added up by the caller that waits

    def __contains__(self, expert: int) -> bool:
        return expert in self._under_way

    def start(self, expert: int, priority: int) -> bool:
        """See Reads."""
        if self._residency.take(expert, is_demand=priority == 0) is None:
            return False
        self._order += 1
        bisect.insort(self._queue, (priority, self._order, expert, self.now_s))
        self._under_way.add(expert)
        if priority == 0:
            self._demanded.add(expert)
        self.pending_bytes += int(self._catalog.num_bytes[expert])
        return True

    def cancel(self, expert: int) -> bool:
        """See Reads."""
        for request in self._queue:
            if request[2] == expert:
                self._queue.remove(request)
                self._under_way.remove(expert)
                self._residency.drop(expert)
                self.pending_bytes -= int(self._catalog.num_bytes[expert])
                return True
        return False

    def demand(self, expert: int) -> None:
        """A queued read goes first from here on."""
        self._demanded.add(expert)
        for request in self._queue:
            if request[2] == expert:
                self._queue.remove(request)
                bisect.insort(self._queue, (0, *request[1:]))
                return

    @property
    def demanded_bytes(self) -> int:
        """See Reads."""
        return sum(int(self._catalog.num_bytes[expert]) for expert in self._demanded)

    def advance(self, until_s: float) -> None:
        """Let time pass."""
        while self._queue and max(self._free_s, self._queue[0][3]) <= until_s:
            _, _, expert, submitted_s = self._queue.pop(0)
            num_bytes = int(self._catalog.num_bytes[expert])
            self._free_s = max(self._free_s, submitted_s) + num_bytes / self._device.bytes_per_s
            self._arriving.append((self._free_s + self._device.latency_s, expert))
        while self._arriving and self._arriving[0][0] <= until_s:
            _, expert = self._arriving.pop(0)
            num_bytes = int(self._catalog.num_bytes[expert])
            self._under_way.remove(expert)
            self._demanded.discard(expert)
            self._residency.admit(expert)
            self.pending_bytes -= num_bytes
            self.bytes_read += num_bytes
        self.now_s = max(self.now_s, until_s)

    def wait_any(self, experts: list[int]) -> None:
        """Let time pass until one of these experts has arrived; at once if one has, or none is left."""
        while experts and all(expert in self._under_way for expert in experts):
            candidates = [self._arriving[0][0]] if self._arriving else []
            if self._queue:
                candidates.append(max(self._free_s, self._queue[0][3], self.now_s))
            self.advance(min(candidates))
