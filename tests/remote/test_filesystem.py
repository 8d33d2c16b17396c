"""Addresses that fsspec alone reads, by its file system in memory."""

from __future__ import annotations

import pytest
from helpers.live_server import DEMO_STORE

from edgemoe.errors import NotAStoreError
from edgemoe.native import aligned_empty
from edgemoe.store import open_store

fsspec = pytest.importorskip("fsspec")


def test_a_store_is_read_through_fsspec():
    files = fsspec.filesystem("memory")
    for path in DEMO_STORE.iterdir():
        files.pipe_file(f"/stores/demo/{path.name}", path.read_bytes())
    store, local = open_store("memory://stores/demo"), open_store(DEMO_STORE)
    assert all((store.read_dense()[name] == data).all() for name, data in local.read_dense().items())
    reader = store.with_tier(0).open_expert_reader()
    key, entry = next(iter(local.manifest.experts.items()))
    record = aligned_empty(entry.num_bytes)
    reader.wait(reader.submit(0, entry.offset, record))
    reader.close()
    store.verify_expert(key, record)
    with pytest.raises(NotAStoreError, match="memory://stores/none: not a store"):
        open_store("memory://stores/none")
