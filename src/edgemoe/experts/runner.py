"""Experts streamed from storage: the ExpertRunner used in production.

Resident experts of a layer are computed while missing ones are read; a missing one is computed as it
arrives. Outputs are summed in a fixed order, so that what was resident never changes a result.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgemoe.errors import RequestError
from edgemoe.experts.cache import ExpertCache, Slot
from edgemoe.native import ByteArray, ExpertLayerOutput, ExpertWeights, FloatArray, IntArray
from edgemoe.store import ExpertKey, ExpertReader, Store, expert_matrices

# Every record is compared with its checksum the first time it is read ("first"), each time, or never.
VERIFY_MODES = ("first", "always", "never")


@dataclass(frozen=True, slots=True)
class ExpertLayerShape:
    """What the experts of one layer have in common: gate and up are (F, D), down is (D, F)."""

    width: int
    expert_width: int
    activation: str


@dataclass(slots=True)
class ExpertCounts:
    """What the experts cost so far: uses of resident and of missing experts, bytes read."""

    hits: int = 0
    misses: int = 0
    bytes_read: int = 0


class StreamedExperts:
    """Computes experts from a cache that is filled on demand; see ExpertRunner."""

    def __init__(
        self,
        layers: Mapping[int, ExpertLayerShape],
        store: Store,
        reader: ExpertReader,
        cache: ExpertCache,
        verify: str = "first",
    ) -> None:
        if verify not in VERIFY_MODES:
            raise RequestError(f"no verify mode {verify!r}; choose one of {', '.join(VERIFY_MODES)}")
        self._layers = layers
        self._store = store
        self._reader = reader
        self._cache = cache
        self._verify = verify
        self._verified: set[ExpertKey] = set()
        self.counts = ExpertCounts()

    def run(self, layer: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> FloatArray:
        """See ExpertRunner."""
        output = ExpertLayerOutput(x, expert_ids, self._layers[layer].activation)
        # Ascending ids are the order of the records on storage.
        chosen = [(layer, expert) for expert in np.unique(expert_ids).tolist()]
        hits = [key for key in chosen if key in self._cache]
        misses = [key for key in chosen if key not in self._cache]
        self.counts.hits += len(hits)
        self.counts.misses += len(misses)
        pinned = {key: self._cache.pin(key) for key in hits}
        loads = _Loads(self._reader, self._store, self._cache, misses)
        try:
            loads.start()
            for key, expert in pinned.items():
                output.add(key[1], expert)
                self._cache.unpin(key)
                loads.start()
            while loads.are_under_way:
                key, slot, record = loads.wait()
                output.add(key[1], self._admit(key, slot, record))
                self._cache.unpin(key)
                loads.start()
        finally:
            loads.abandon()
            for key in hits:
                self._cache.unpin(key)
        return output.combine(weights)

    def close(self) -> None:
        """Stop the reader; later calls of ``run`` fail."""
        self._reader.close()

    def _admit(self, key: ExpertKey, slot: Slot, record: ByteArray) -> ExpertWeights:
        try:
            if self._verify == "always" or (self._verify == "first" and key not in self._verified):
                self._store.verify_expert(key, record)
                self._verified.add(key)
        except BaseException:
            self._cache.release(slot)
            raise
        entry = self._store.manifest.experts[key]
        shape = self._layers[key[0]]
        matrices = expert_matrices(record, entry.formats, shape.width, shape.expert_width)
        weights = ExpertWeights(*matrices)
        self._cache.admit(key, slot, weights)
        self._cache.pin(key)
        self.counts.bytes_read += entry.num_bytes
        return weights


class _Loads:
    """The reads of one layer's missing experts, as many at a time as there are slots."""

    def __init__(
        self, reader: ExpertReader, store: Store, cache: ExpertCache, keys: Iterable[ExpertKey]
    ) -> None:
        self._reader = reader
        self._store = store
        self._cache = cache
        self._waiting = deque(keys)
        self._reading: dict[int, tuple[ExpertKey, Slot, ByteArray]] = {}

    @property
    def are_under_way(self) -> bool:
        return bool(self._reading)

    def start(self) -> None:
        """Submit reads while slots can be had."""
        while self._waiting and (slot := self._cache.reserve()) is not None:
            key = self._waiting.popleft()
            entry = self._store.manifest.experts[key]
            record = slot.buffer[: entry.num_bytes]
            ticket = self._reader.submit(self._store.file_index(entry), entry.offset, record)
            self._reading[ticket] = (key, slot, record)

    def wait(self) -> tuple[ExpertKey, Slot, ByteArray]:
        """The next expert to arrive."""
        ticket = self._reader.wait_any(list(self._reading))
        key, slot, record = self._reading.pop(ticket)
        try:
            self._reader.wait(ticket)
        except OSError as error:
            self._cache.release(slot)
            raise self._store.read_error(key, error) from error
        return key, slot, record

    def abandon(self) -> None:
        """After an error: let nothing write into a slot that is given back."""
        for ticket, (_, slot, _) in self._reading.items():
            self._reader.cancel(ticket)
            with contextlib.suppress(OSError):  # the first error is the one to report
                self._reader.wait(ticket)
            self._cache.release(slot)
        self._reading.clear()
