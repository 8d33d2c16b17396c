"""What a store holds, read for an export: a dense tensor or expert at a time, compared with its checksum."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgemoe import native
from edgemoe.models import ModelSpec
from edgemoe.native import ByteArray, FloatArray, Matrix
from edgemoe.safetensors_header import read_exactly
from edgemoe.store import ExpertKey, Store, expert_matrices


def read_dense(store: Store, name: str) -> Matrix | FloatArray:
    """A dense tensor: floats of a vector, else a packed matrix.

    Raises:
        CorruptStoreError: it is damaged.
    """
    entry = store.manifest.dense[name]
    with (store.path / entry.file).open("rb") as file:
        data = np.frombuffer(read_exactly(file.fileno(), entry.num_bytes, entry.offset), np.uint8)
    store.verify_dense(name, data)
    if len(entry.shape) == 1:
        return data[: 4 * entry.shape[0]].view(np.float32)
    rows, cols = entry.shape
    return Matrix(data[: native.packed_num_bytes(entry.format, rows, cols)], entry.format, rows, cols)


def read_experts(store: Store, spec: ModelSpec) -> Iterator[tuple[ExpertKey, dict[str, Matrix], int]]:
    """Every expert's matrices by their names, and the bytes of its record; good until the next one.

    Raises:
        ExpertReadError, CorruptStoreError: one cannot be read, or is damaged.
    """
    entries = store.manifest.experts
    reader = store.open_expert_reader()
    buffer = native.aligned_empty(max(entry.num_bytes for entry in entries.values()))
    try:
        for key, entry in entries.items():
            record: ByteArray = buffer[: entry.num_bytes]
            try:
                reader.wait(reader.submit(store.file_index(entry), entry.offset, record))
            except OSError as error:
                raise store.read_error(key, error.strerror) from error
            store.verify_expert(key, record)
            found = expert_matrices(record, entry.formats, *spec.expert_sizes(key[0]))
            named = zip(("gate", "up", "down"), found, strict=True)
            yield key, {name: matrix for name, matrix in named if matrix is not None}, entry.num_bytes
    finally:
        reader.close()
