"""Experts streamed through a cache, one layer at a time. Used by one thread.

Experts are numbered by layer, then by expert; a layer's position is its place among those that have experts.
Letters: T tokens, D width, K chosen.

``SlotArena(capacity_bytes, record_sizes)``: slots for records of several sizes in a fixed number of bytes,
by number: ``take(num_bytes)``, ``give(slot)``, ``buffer(slot, num_bytes)``. ``slot_num_bytes(num_bytes)`` is
what a record takes in memory, ``touched_bytes`` what may be there now.

``ExpertCache(residency, arena, record_sizes)``: ``reserve(expert, is_demand)`` gives the room to load an
absent expert into, evicting if need be, or None where too little may leave; then ``admit`` it, or ``release``
it. ``record(expert)`` is the record of a resident one. ``holds_all``: there is room for every expert.

``Loads(cache, reader, places, verify, checksums)`` brings experts from their (file, offset) ``places`` into
the cache. ``checksums`` are those of the records as they were written (xxh3_64), by expert, 0 where a first
read has to say; later it says what is known:

* ``start(expert, priority)`` queues the read of an absent expert until ``begin()``; False if there is no
  room. Priority 0 is for those needed now; speculation has the number of layers until it is needed.
* ``demand(expert)``: what is being read on speculation is needed now. ``cancel(expert)`` drops a read that
  has not started; True if so.
* ``poll()`` admits what has arrived; ``wait(experts)`` blocks until some of these are in the cache, and
  returns which.
* ``make_room()`` drops a read on speculation that has not started, or waits for one to end.
* ``pending_bytes`` under way, of these ``demanded_bytes``; ``bytes_read`` and ``waited_s`` so far.

``LoadFailed(expert, reason)``: storage failed repeatedly; where the reason is None the record is damaged.

``ExpertStream(statistics, cache, loads, layouts, layers, swaps_layers)``: ``layouts`` gives for each expert
the formats of gate (or None), up and down, the width and the expert width; ``layers`` for each position the
activation, the experts' biases (E, 2 F + D) or None, and the head that forecasts the next token's choice, or
None.
``run(position, x, expert_ids, weights, inputs, out, ahead, rehearse, observe)`` writes the weighted sum of
the chosen experts' outputs to ``out`` (T, D): x (T, any) is what the router saw, ``expert_ids`` and
``weights`` (T, K) what it chose, and ``inputs`` (T, D), often x, what the experts get.
``ahead`` is a ``Speculation``; ``rehearse``, a ``Rehearsal``, may be called for a single token while storage
is waited for, if there is time; ``observe(hits, misses, preloaded)`` is told before experts run. Each may be
None.

ValueError where an expert, a position or a shape does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import edgemoe._native as _native
from edgemoe.native.io import FileReader
from edgemoe.native.matrix import ByteArray, FloatArray
from edgemoe.native.router import IntArray

ExpertCache = _native.ExpertCache
ExpertStream = _native.ExpertStream
LoadFailed = _native.LoadFailed
Loads = _native.Loads
SlotArena = _native.SlotArena
DEMAND_TRIES: int = _native.DEMAND_TRIES

# What the experts of a layer would get of one token, (1, D), its router's scores (1, E), and ids and weights
# (1, K) of the experts that it would choose.
Rehearsed = tuple[FloatArray, FloatArray, IntArray, FloatArray]
# Takes a token's state on to the router of the next layer that has experts, and by every further call on to
# the one after it, given what the experts of the layer before add to the state, (1, D), as far as they are
# there. None after the last layer.
Rehearsal = Callable[[FloatArray], Rehearsed | None]


def compiled_reader(reader: Any) -> _native.Reader:
    """A reader as compiled code takes it; one written in Python has the methods of ``FileReader``."""
    is_compiled = isinstance(reader, (FileReader, TieredReader))
    return reader.compiled if is_compiled else _native.PythonReader(reader)


class TieredReader:
    """A reader of a local copy that has some records, before one of far storage that has them all.

    ``records`` are (file, offset, bytes, checksum) by number. ``table`` (1 + N rows of TierEntry in
    native/io/tiered_reader.h) says which the copy has, in memory that others may change. It is a hint: what
    the copy gives is compared with its checksum, ``forget(number)`` is told where it differs, and it is read
    from afar instead. Thread-safe; submit() and the others as of ``FileReader``.
    """

    def __init__(
        self,
        near: FileReader,
        far: Any,
        records: Sequence[tuple[int, int, int, int]],
        table: ByteArray,
        forget: Callable[[int], None],
    ) -> None:
        self._reader = _native.TieredReader(near.compiled, compiled_reader(far), records, table, forget)
        self._destinations: dict[int, ByteArray] = {}

    @property
    def compiled(self) -> _native.Reader:
        """The reader that compiled code may use as well."""
        return self._reader

    @property
    def near_bytes(self) -> int:
        """Bytes of sound records that the copy has given."""
        return self._reader.near_bytes

    def submit(self, file: int, offset: int, out: ByteArray, priority: int = 0) -> int:
        """Queue a read; lower priority numbers go first. Returns a ticket."""
        ticket = self._reader.submit(file, offset, out, priority)
        self._destinations[ticket] = out  # it must outlive its read even when the caller forgets it
        return ticket

    def begin(self) -> None:
        """Start what is queued."""
        self._reader.begin()

    def wait(self, ticket: int) -> None:
        """Block until the read has ended.

        Raises:
            OSError: it failed.
        """
        try:
            self._reader.wait(ticket)
        except OSError:
            self._destinations.pop(ticket, None)
            raise
        self._destinations.pop(ticket, None)

    def wait_some(self, tickets: Sequence[int], block: bool = True) -> list[int]:
        """Those of the tickets that have ended; while there is none, block or return none."""
        return self._reader.wait_some(tickets, block)

    def cancel(self, ticket: int) -> bool:
        """Drop a read that has not started."""
        return self._reader.cancel(ticket)

    def abandon(self, ticket: int) -> None:
        """Nobody wants the read any more; its destination is free afterwards."""
        self._reader.abandon(ticket)
        self._destinations.pop(ticket, None)
