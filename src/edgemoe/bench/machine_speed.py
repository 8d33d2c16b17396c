"""How fast this machine delivers weights: from memory, to what computes with them, and from storage.

Storage is measured by direct reads of expert-sized blocks from a temporary file.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from edgemoe.engine.machine import available_memory_bytes
from edgemoe.errors import RequestError
from edgemoe.native import ROW_GROUP, Matrix, aligned_empty, matmul, packed_num_bytes, read_memory
from edgemoe.store import open_reader
from edgemoe.system import drop_from_cache, sync_file
from edgemoe.units import MIB, format_size

FILE_BYTES = 128 * MIB  # beyond most drives' own caches of one burst, written in a second or two
BLOCK_BYTES = 2 * MIB  # an expert of a 30B model at 4 bits
DEPTH = 4
NUM_BUFFERS = 8  # blocks that are read into in turn
MEMORY_BYTES = 128 * MIB  # beyond the caches
LEAST_MEMORY_BYTES = 4 * MIB
NUM_PASSES = 5
PRODUCT_COLS = 2048  # of rows, as wide as small models


@dataclass(frozen=True)
class StorageSpeed:
    """What was measured, and how."""

    folder: str
    bytes_per_s: float
    method: str  # of native.READ_METHODS

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return asdict(self)


def measure_memory() -> float:
    """Bytes per second of reading memory on all threads, the median of a few passes.

    A token reads its weights once, so no engine makes more tokens a second than this over their bytes. Where
    little memory is free, a third of that is read.
    """
    buffer = aligned_empty(_measured_bytes() // MIB * MIB)
    buffer[:] = 1  # pages that were never written are all the same page of zeros
    return len(buffer) / _median_s(lambda: read_memory(buffer))


def measure_products(format: str) -> float:
    """Bytes per second of packed weights that a token is multiplied with on all threads, as in
    ``measure_memory``; the less where unpacking the format takes longer than reading it.
    """
    num_rows = _measured_bytes() // packed_num_bytes(format, ROW_GROUP, PRODUCT_COLS) * ROW_GROUP
    packed = aligned_empty(packed_num_bytes(format, num_rows, PRODUCT_COLS))
    packed[:] = 0
    x, matrix = np.ones((1, PRODUCT_COLS), np.float32), Matrix(packed, format, num_rows, PRODUCT_COLS)
    out = np.empty((1, num_rows), np.float32)
    return len(packed) / _median_s(lambda: matmul(x, matrix, out))


def _measured_bytes() -> int:
    return max(LEAST_MEMORY_BYTES, min(MEMORY_BYTES, available_memory_bytes()[0] // 3))


def _median_s(run: Callable[[], object]) -> float:
    times_s = []
    for _ in range(NUM_PASSES + 1):
        started = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s[1:])


def measure_storage(folder: Path) -> StorageSpeed:
    """Write a temporary file in `folder`, read its blocks in random order, remove it.

    Raises:
        RequestError: the folder cannot be written or has too little room.
    """
    try:
        with NamedTemporaryFile(dir=folder, prefix=".edgemoe-speed-") as file:
            block = random.Random(0).randbytes(BLOCK_BYTES)
            for _ in range(FILE_BYTES // BLOCK_BYTES):
                file.write(block)
            file.flush()
            sync_file(file.fileno())
            drop_from_cache(file.fileno())
            return _read_blocks(folder, file.name)
    except OSError as error:
        raise RequestError(
            f"cannot measure storage in {folder}: {error.strerror or error}; it takes a writable "
            f"folder with {format_size(FILE_BYTES)} free"
        ) from error


def _read_blocks(folder: Path, path: str) -> StorageSpeed:
    reader = open_reader([Path(path)], max_depth=DEPTH)
    buffer = aligned_empty(NUM_BUFFERS * BLOCK_BYTES)
    buffer[:] = 0  # else the system would clear pages while reads are timed
    offsets = list(range(0, FILE_BYTES, BLOCK_BYTES))
    random.Random(1).shuffle(offsets)
    try:
        started = time.perf_counter()
        tickets: deque[int] = deque()
        for number, at in enumerate(offsets):
            if len(tickets) == NUM_BUFFERS:
                reader.wait(tickets.popleft())
            place = number % NUM_BUFFERS * BLOCK_BYTES
            tickets.append(reader.submit(0, at, buffer[place : place + BLOCK_BYTES]))
        while tickets:
            reader.wait(tickets.popleft())
        elapsed_s = time.perf_counter() - started
    finally:
        reader.close()
    return StorageSpeed(str(folder), FILE_BYTES / elapsed_s, reader.method)
