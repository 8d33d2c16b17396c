"""The expert cache: slots in one arena of fixed size, and who is in them.

No memory is taken after construction. A slot is empty, loading, or holds a resident expert; experts in
use are pinned and never evicted.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe.experts.policies import EvictionPolicy, ExpertKey
from edgemoe.native import ByteArray, ExpertWeights, aligned_empty


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one record in the arena."""

    index: int
    buffer: ByteArray


class ExpertCache:
    """Slots of ``slot_num_bytes`` each, a multiple of 4096. Used by one thread."""

    def __init__(self, num_slots: int, slot_num_bytes: int, policy: EvictionPolicy) -> None:
        self._arena = aligned_empty(num_slots * slot_num_bytes)
        self._free = [
            Slot(i, self._arena[i * slot_num_bytes : (i + 1) * slot_num_bytes]) for i in range(num_slots)
        ]
        self._policy = policy
        self._resident: dict[ExpertKey, tuple[Slot, ExpertWeights]] = {}
        self._pinned: set[ExpertKey] = set()
        self.num_slots = num_slots

    def __contains__(self, key: ExpertKey) -> bool:
        return key in self._resident

    def __len__(self) -> int:
        return len(self._resident)

    def pin(self, key: ExpertKey) -> ExpertWeights:
        """Use a resident expert: it counts as used now and stays until ``unpin``."""
        self._policy.touch(key)
        self._pinned.add(key)
        return self._resident[key][1]

    def unpin(self, key: ExpertKey) -> None:
        """Allow an expert to be evicted again."""
        self._pinned.discard(key)

    def reserve(self) -> Slot | None:
        """An empty slot to load into, evicting if need be; None when all are loading or pinned."""
        if self._free:
            return self._free.pop()
        key = self._policy.choose(lambda candidate: candidate not in self._pinned)
        if key is None:
            return None
        self._policy.remove(key)
        return self._resident.pop(key)[0]

    def admit(self, key: ExpertKey, slot: Slot, weights: ExpertWeights) -> None:
        """Make a loaded slot the resident expert ``key``; ``weights`` are views into the slot."""
        self._resident[key] = (slot, weights)
        self._policy.admit(key)

    def release(self, slot: Slot) -> None:
        """Give back a reserved slot whose load failed."""
        self._free.append(slot)
