"""Adding a file to a finished store."""

from __future__ import annotations

import os

import pytest

from edgemoe.errors import ConversionError, StoreError
from edgemoe.store import attach_file, open_store
from edgemoe.store.durable import lock_folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_is_added_checked_and_replaced(store_copy):
    before = names(store_copy)
    first = attach_file(open_store(store_copy), "notes", ".bin", b"one")
    (added,) = names(store_copy) - before
    assert (store_copy / added).read_bytes() == b"one"
    assert first.manifest == open_store(store_copy).manifest
    attach_file(first, "notes", ".bin", b"two")
    (replaced,) = names(store_copy) - before
    assert (store_copy / replaced).read_bytes() == b"two"
    assert list(open_store(store_copy).verify()) == []


def test_a_changed_file_is_found_when_the_store_is_opened(store_copy):
    attach_file(open_store(store_copy), "notes", ".bin", b"one")
    (file,) = store_copy.glob("notes-*")
    file.write_bytes(b"eno")
    (note,) = open_store(store_copy).notes
    assert f"{file.name}: differs from what was written" in note
    assert note.endswith("run `edgemoe fit` again; the store is run without it")
    assert list(open_store(store_copy).verify()) == [note]


def test_what_was_added_is_replaced_where_it_is_damaged_or_lost(store_copy):
    attach_file(open_store(store_copy), "notes", ".safetensors", b"one")
    (file,) = store_copy.glob("notes-*")
    for damage in (lambda: file.write_bytes(b"longer"), file.unlink):
        damage()
        assert "run `edgemoe fit` again" in open_store(store_copy).notes[0]
    attach_file(open_store(store_copy, checks_attached=False), "notes", ".safetensors", b"two")
    open_store(store_copy)


def test_two_writers_do_not_meet(store_copy):
    store = open_store(store_copy)
    lock = lock_folder(store_copy)
    try:
        with pytest.raises(ConversionError, match="another"):
            attach_file(store, "notes", ".bin", b"one")
    finally:
        os.close(lock)


def test_a_full_disk_leaves_the_store_as_it_was(store_copy, monkeypatch):
    store, before = open_store(store_copy), names(store_copy)

    def full(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgemoe.store.attach.write_file", full)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        attach_file(store, "notes", ".bin", b"one")
    assert open_store(store_copy).manifest == store.manifest
    assert names(store_copy) == before  # nothing that no manifest lists
    monkeypatch.undo()
    attach_file(store, "notes", ".bin", b"one")
    assert len(names(store_copy) - before) == 1
