"""How fast the storage under a store delivers experts, and how many reads at a time it likes best."""

from __future__ import annotations

import contextlib
import time

from edgemoe.native import aligned_empty
from edgemoe.store import ExpertReader, Store

# Reads at a time. One place stays free for what is needed now, so one alone would never read ahead.
DEPTHS = (2, 4, 8)
MAX_DEPTH = DEPTHS[-1]
# A deeper queue must gain this much: reads inside the device cannot be overtaken any more, and they arrive
# together, where one after the other would each be computed while the next one comes.
WORTHWHILE = 1.15
# Of several tries the fastest counts: what else the storage is busy with only takes away from it.
MAX_TRIES = 3
# Bounds of one measurement: enough to average, little enough for slow storage and small memory.
MAX_READS, MAX_SECONDS, MAX_BYTES = 64, 0.05, 32 << 20


def tune_depth(store: Store, reader: ExpertReader) -> tuple[float, float]:
    """Set the reader's depth by reading some experts.

    Returns bytes per second at that depth, and the seconds that a single read takes beyond its bytes.
    A read that fails is left to the one who needs the expert.
    """
    reader.set_depth(1)
    alone, read_num_bytes = _measure(store, reader)
    best_depth, best = DEPTHS[0], 0.0
    for depth in DEPTHS:
        reader.set_depth(depth)
        bytes_per_s, _ = _measure(store, reader)
        if bytes_per_s < best * WORTHWHILE:
            break
        best_depth, best = depth, bytes_per_s
    reader.set_depth(best_depth)
    return best, max(0.0, read_num_bytes / alone - read_num_bytes / best)


def _measure(store: Store, reader: ExpertReader) -> tuple[float, float]:
    """Bytes per second, the best of several tries that take little time, and the mean size of a record."""
    began_s = time.perf_counter()
    best, mean_num_bytes = _measure_once(store, reader)
    for _ in range(MAX_TRIES - 1):
        if time.perf_counter() - began_s > MAX_SECONDS:
            break
        best = max(best, _measure_once(store, reader)[0])
    return best, mean_num_bytes


def _measure_once(store: Store, reader: ExpertReader) -> tuple[float, float]:
    entries = list(store.manifest.experts.values())[:MAX_READS]
    largest = max(entry.num_bytes for entry in entries)
    # More than are read at a time: the queue must not run dry before the last.
    buffers = [aligned_empty(largest) for _ in range(max(1, min(4 * MAX_DEPTH, MAX_BYTES // largest)))]
    for buffer in buffers:
        buffer[:] = 0  # else the system would clear pages while reads are timed
    began_s, num_bytes, num_reads = time.perf_counter(), 0, 0
    for start in range(0, len(entries), len(buffers)):
        batch = entries[start : start + len(buffers)]
        tickets = [
            reader.submit(store.file_index(entry), entry.offset, buffer[: entry.num_bytes])
            for entry, buffer in zip(batch, buffers, strict=False)
        ]
        for ticket, entry in zip(tickets, batch, strict=True):
            with contextlib.suppress(OSError):
                reader.wait(ticket)
            num_bytes += entry.num_bytes
            num_reads += 1
        if time.perf_counter() - began_s > MAX_SECONDS or num_bytes >= MAX_BYTES:
            break
    return num_bytes / (time.perf_counter() - began_s), num_bytes / num_reads
