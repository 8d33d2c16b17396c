"""Adding a file to a finished store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from edgemoe.errors import StoreError
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


def test_the_second_of_two_writers_waits_for_the_first(store_copy):
    """Its work may have taken an hour: it is not lost to another's moment."""
    store = open_store(store_copy)
    lock = lock_folder(store_copy)
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(attach_file, store, "notes", ".bin", b"one")
        assert not wait([second], timeout=0.2).done
        assert not list(store_copy.glob("notes-*"))
        (store_copy / "lock").unlink()  # as the first does at its end
        os.close(lock)
        assert second.result(timeout=60).manifest == open_store(store_copy).manifest
    assert names(store_copy) >= {"edgemoe.json"}
    assert "lock" not in names(store_copy)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("step", ["write_file", "replace_file"])
def test_an_interrupt_leaves_the_store_as_it_was(store_copy, monkeypatch, step, stop):
    store, before = open_store(store_copy), names(store_copy)

    def interrupted(path, data):
        if step == "write_file":
            path.write_bytes(data[:1])
        raise stop

    monkeypatch.setattr(f"edgemoe.store.attach.{step}", interrupted)
    with pytest.raises(stop):
        attach_file(store, "notes", ".bin", b"one")
    assert names(store_copy) == before


def test_a_file_that_the_manifest_lists_stays_when_what_follows_fails(store_copy, monkeypatch):
    """The manifest has changed hands, and then the folder cannot be forced to disk."""

    def replaced(path, data):
        path.write_bytes(data)
        raise OSError(5, "Input/output error")

    (store_copy / "notes-0123.bin").write_bytes(b"what a kill has left")
    monkeypatch.setattr("edgemoe.store.attach.replace_file", replaced)
    with pytest.raises(StoreError, match="cannot be written: Input/output error"):
        attach_file(open_store(store_copy), "notes", ".bin", b"one")
    assert not open_store(store_copy).notes
    assert len(list(store_copy.glob("notes-*"))) == 1


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
