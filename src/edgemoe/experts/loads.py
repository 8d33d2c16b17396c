"""Reads of experts under way: those demanded now, and those started on speculation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgemoe.errors import EdgeMoEError, RequestError
from edgemoe.experts.arena import Slot
from edgemoe.experts.cache import ExpertCache
from edgemoe.native import ExpertWeights
from edgemoe.store import ExpertReader, Store, expert_matrices

# Every record is compared with its checksum the first time it is read ("first"), each time, or never.
VERIFY_MODES = ("first", "always", "never")
# A demanded read that fails is tried again: a cable or a busy device may have been at fault.
DEMAND_TRIES = 3
DEMAND = 0  # priority; speculation has the number of layers until it is needed


@dataclass(frozen=True, slots=True)
class ExpertLayerShape:
    """What the experts of one layer have in common: gate and up are (F, D), down is (D, F)."""

    width: int
    expert_width: int
    activation: str


@dataclass(slots=True)
class _Read:
    expert: int
    slot: Slot
    priority: int
    num_tries: int = 1


class Loads:
    """Brings experts into the cache. Used by one thread.

    A speculative read that fails or is damaged is forgotten: if the expert is needed it is demanded,
    tried anew, and then the error is raised.
    """

    def __init__(
        self,
        store: Store,
        reader: ExpertReader,
        cache: ExpertCache,
        shapes: Mapping[int, ExpertLayerShape],
        verify: str,
    ) -> None:
        if verify not in VERIFY_MODES:
            raise RequestError(f"no verify mode {verify!r}; choose one of {', '.join(VERIFY_MODES)}")
        self._store = store
        self._reader = reader
        self._cache = cache
        self._shapes = shapes
        self._verify = verify
        self._keys = cache.catalog.keys
        self._entries = [store.manifest.experts[key] for key in self._keys]
        self._files = [store.file_index(entry) for entry in self._entries]
        makes = [
            (entry.formats, shapes[key[0]]) for key, entry in zip(self._keys, self._entries, strict=True)
        ]
        numbers = {make: number for number, make in enumerate(dict.fromkeys(makes))}
        self._makes = [numbers[make] for make in makes]  # experts of one make have the same views of a slot
        self._views: dict[tuple[int, int], ExpertWeights] = {}
        self._verified: set[int] = set()
        self._reads: dict[int, _Read] = {}  # by ticket
        self._tickets: dict[int, int] = {}  # by expert
        self.bytes_read = 0
        self.pending_bytes = 0
        self.demanded_bytes = 0  # of these, what is needed now
        self.waited_s = 0.0

    def __contains__(self, expert: int) -> bool:
        return expert in self._tickets

    def start(self, expert: int, priority: int = DEMAND) -> bool:
        """Queue the read of an absent expert until ``begin``; False if the cache has no room for it."""
        slot = self._cache.reserve(expert, is_demand=priority == DEMAND)
        if slot is None:
            return False
        self._submit(_Read(expert, slot, priority))
        self.pending_bytes += len(slot.buffer)
        self.demanded_bytes += len(slot.buffer) if priority == DEMAND else 0
        return True

    def begin(self) -> None:
        """Start the reads that are queued."""
        self._reader.begin()

    def demand(self, expert: int) -> None:
        """An expert being read on speculation is needed now: its read goes first from here on."""
        ticket = self._tickets[expert]
        read = self._reads[ticket]
        if read.priority == DEMAND:
            return
        is_queued = self._reader.cancel(ticket)
        read.priority = DEMAND
        self.demanded_bytes += len(read.slot.buffer)
        if is_queued:
            self._reader.wait(ticket)
            del self._reads[ticket]
            self._submit(read)
            self._reader.begin()

    def cancel(self, expert: int) -> bool:
        """Drop a read that has not started; True if so."""
        ticket = self._tickets[expert]
        if not self._reader.cancel(ticket):
            return False
        self._reader.wait(ticket)
        self._forget(ticket)
        self._cache.release(expert)
        return True

    def poll(self) -> None:
        """Admit what has arrived; never blocks."""
        if self._reads:
            for ticket in self._reader.wait_some(list(self._reads), block=False):
                self._arrive(ticket)

    def wait(self, experts: list[int]) -> list[int]:
        """Block until some of these demanded experts are in the cache; returns which.

        Raises:
            ExpertReadError: storage failed repeatedly.
            CorruptStoreError: an expert is damaged.
        """
        began_s = time.perf_counter()
        try:
            arrived: list[int] = []
            while not arrived:
                tickets = self._reader.wait_some([self._tickets[expert] for expert in experts])
                arrived = [expert for ticket in tickets if (expert := self._arrive(ticket)) is not None]
            return arrived
        finally:
            self.waited_s += time.perf_counter() - began_s

    def make_room(self) -> None:
        """Drop a read on speculation that has not started; if there is none, wait for one to end."""
        for read in reversed(list(self._reads.values())):
            if read.priority > DEMAND and self.cancel(read.expert):
                return
        for ticket in self._reader.wait_some(list(self._reads)):
            self._arrive(ticket)

    def abandon(self) -> None:
        """After an error: let nothing write into a slot that is given back."""
        for ticket in list(self._reads):
            self._reader.cancel(ticket)
            with contextlib.suppress(OSError):  # the first error is the one to report
                self._reader.wait(ticket)
            self._cache.release(self._forget(ticket).expert)

    def _submit(self, read: _Read) -> None:
        entry = self._entries[read.expert]
        ticket = self._reader.submit(self._files[read.expert], entry.offset, read.slot.buffer, read.priority)
        self._reads[ticket] = read
        self._tickets[read.expert] = ticket

    def _forget(self, ticket: int) -> _Read:
        read = self._reads.pop(ticket)
        del self._tickets[read.expert]
        self.pending_bytes -= len(read.slot.buffer)
        self.demanded_bytes -= len(read.slot.buffer) if read.priority == DEMAND else 0
        return read

    def _arrive(self, ticket: int) -> int | None:
        """Take in an ended read; None if it failed and was forgotten or is tried again."""
        read = self._reads[ticket]
        try:
            try:
                self._reader.wait(ticket)
            except OSError as error:
                raise self._store.read_error(self._keys[read.expert], error) from error
            self._check(read)
        except EdgeMoEError:
            if read.priority == DEMAND and read.num_tries < DEMAND_TRIES:
                del self._reads[ticket]
                read.num_tries += 1
                self._submit(read)
                return None
            self._forget(ticket)
            self._cache.release(read.expert)
            if read.priority == DEMAND:
                raise
            return None
        self._forget(ticket)
        self.bytes_read += len(read.slot.buffer)
        self._cache.admit(read.expert, self._weights(read))
        return read.expert

    def _check(self, read: _Read) -> None:
        is_due = self._verify == "first" and read.expert not in self._verified
        if self._verify == "always" or is_due:
            self._store.verify_expert(self._keys[read.expert], read.slot.buffer)
            self._verified.add(read.expert)

    def _weights(self, read: _Read) -> ExpertWeights:
        # Slots are used again and again for experts of the same make: their views are kept.
        key = (self._makes[read.expert], read.slot.offset)
        if key not in self._views:
            self._views[key] = self._view(read)
        return self._views[key]

    def _view(self, read: _Read) -> ExpertWeights:
        shape = self._shapes[self._keys[read.expert][0]]
        formats = self._entries[read.expert].formats
        return ExpertWeights(*expert_matrices(read.slot.buffer, formats, shape.width, shape.expert_width))
