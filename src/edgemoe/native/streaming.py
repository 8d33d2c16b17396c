"""Experts streamed through a cache, one layer at a time. Used by one thread.

Experts are numbered by layer, then by expert; a layer's position is its place among those that have experts.
``help()`` of the classes says what each does: the cache of records, the loads that fill it, and the stream
that runs a layer from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import edgemoe._native as _native
from edgemoe.native.io import CompiledReader, FileReader
from edgemoe.native.matrix import ByteArray, FloatArray
from edgemoe.native.router import IntArray

ExpertCache = _native.ExpertCache
ExpertStream = _native.ExpertStream
LoadFailed = _native.LoadFailed
Loads = _native.Loads
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
    return reader.compiled if isinstance(reader, CompiledReader) else _native.PythonReader(reader)


class TieredReader(CompiledReader[_native.TieredReader]):
    """A reader of a local copy that has some records, before one of far storage that has them all.

    ``records`` are (file, offset, bytes, checksum) by number. ``table`` (1 + N rows of TierEntry in
    native/io/tiered_reader.h) says which the copy has, in memory that others may change. It is a hint: what
    the copy gives is compared with its checksum, ``forget(number)`` is told where it differs, and it is read
    over the network instead.
    """

    def __init__(
        self,
        near: FileReader,
        far: Any,
        records: Sequence[tuple[int, int, int, int]],
        table: ByteArray,
        forget: Callable[[int], None],
    ) -> None:
        super().__init__(_native.TieredReader(near.compiled, compiled_reader(far), records, table, forget))

    @property
    def near_bytes(self) -> int:
        """Bytes of sound records that the copy has given."""
        return self._reader.near_bytes

    def abandon(self, ticket: int) -> None:
        """Nobody wants the read any more; its destination is free afterwards."""
        self._reader.abandon(ticket)
        self._destinations.pop(ticket, None)
