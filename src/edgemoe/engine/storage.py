"""How fast the storage under a store delivers experts, and how many reads at a time are best."""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import dataclass

from edgemoe.native import aligned_empty
from edgemoe.store import ExpertReader, Store

# A deeper queue must gain this much: reads inside the device cannot be overtaken any more, and they arrive
# together, where one after the other would each be computed while the next one comes.
WORTHWHILE = 1.15
# Of several tries the fastest counts: what else the storage is busy with only takes away from it.
MAX_TRIES = 3
# Bounds of one measurement: enough to average, little enough for slow storage and small memory.
MAX_READS, MAX_SECONDS, MAX_BYTES = 64, 0.05, 32 << 20


@dataclass(frozen=True, slots=True)
class StorageSpeed:
    """How fast reads are at the depth that suits the storage best."""

    bytes_per_s: float
    latency_s: float  # that a read alone takes beyond its bytes
    handling_s: float  # of the processor in the kernel, for one read


def tune_depth(store: Store, reader: ExpertReader) -> StorageSpeed:
    """Set the reader's depth by reading some experts.

    A read that fails is left to the one who needs the expert.
    """
    probe, began_s = _Probe(store, reader), _kernel_s()
    alone = probe.bytes_per_s(1)
    best_depth, best = store.depths[0], 0.0
    for depth in store.depths:
        bytes_per_s = probe.bytes_per_s(depth)
        if bytes_per_s < best * WORTHWHILE:
            break
        best_depth, best = depth, bytes_per_s
    reader.set_depth(best_depth)
    read_num_bytes = probe.num_bytes / probe.num_reads
    return StorageSpeed(
        bytes_per_s=best,
        latency_s=max(0.0, read_num_bytes / alone - read_num_bytes / best),
        handling_s=(_kernel_s() - began_s) / probe.num_reads,
    )


def _kernel_s() -> float:
    """Seconds that the kernel has worked for this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


class _Probe:
    """Reads experts to see how fast they come, and counts what it has read."""

    def __init__(self, store: Store, reader: ExpertReader) -> None:
        self._store = store
        self._reader, self._entries = store.sample(reader, MAX_READS)
        largest = max(entry.num_bytes for entry in self._entries)
        # More than are read at a time: the queue must not run dry before the last.
        count = max(1, min(4 * store.depths[-1], MAX_BYTES // largest))
        self._buffers = [aligned_empty(largest) for _ in range(count)]
        for buffer in self._buffers:
            buffer[:] = 0  # else the system would clear pages while reads are timed
        self.num_reads = self.num_bytes = 0

    def bytes_per_s(self, depth: int) -> float:
        """The best of several tries that take little time, of so many reads at a time."""
        self._reader.set_depth(depth)
        began_s = time.perf_counter()
        best = self._try(depth)
        for _ in range(MAX_TRIES - 1):
            if time.perf_counter() - began_s > MAX_SECONDS:
                break
            best = max(best, self._try(depth))
        return best

    def _try(self, depth: int) -> float:
        began_s, num_bytes = time.perf_counter(), 0
        num_queued = min(len(self._buffers), 4 * depth)
        for start in range(0, len(self._entries), num_queued):
            batch = self._entries[start : start + num_queued]
            tickets = [
                self._reader.submit(self._store.file_index(entry), entry.offset, buffer[: entry.num_bytes])
                for entry, buffer in zip(batch, self._buffers, strict=False)
            ]
            for ticket, entry in zip(tickets, batch, strict=True):
                with contextlib.suppress(OSError):
                    self._reader.wait(ticket)
                num_bytes += entry.num_bytes
            self.num_reads += len(batch)
            if time.perf_counter() - began_s > MAX_SECONDS or num_bytes >= MAX_BYTES:
                break
        self.num_bytes += num_bytes
        return num_bytes / (time.perf_counter() - began_s)
