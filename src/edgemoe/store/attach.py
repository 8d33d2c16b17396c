"""Adding a file to a finished store, such as what was fitted for it, so that a power cut loses nothing."""

from __future__ import annotations

import os
from dataclasses import replace

from edgemoe.errors import StoreError
from edgemoe.store.durable import LOCK_FILE, lock_folder, replace_file, sync_folder, write_file
from edgemoe.store.format import MANIFEST_FILE, checksum
from edgemoe.store.store import Store, open_store


def attach_file(store: Store, stem: str, suffix: str, data: bytes) -> Store:
    """The store with ``data`` as its only file named ``stem``-...``suffix``; the one before is removed.

    The name holds the content's checksum, and the manifest changes hands in one rename: whoever opens
    the store meanwhile finds the old file or the new one, whole.

    Raises:
        StoreError: the store cannot be written.
        ConversionError: another process is writing it.
    """
    name = f"{stem}-{checksum(data)}{suffix}"
    folder = store.path
    lock = lock_folder(folder)
    known: set[str] = {name}  # what stays if this fails
    try:
        manifest = open_store(folder, checks_attached=False).manifest
        known = set(manifest.files)
        old = {f for f in manifest.files if f.startswith(f"{stem}-") and f.endswith(suffix)} - {name}
        write_file(folder / name, data)
        files = {f: size for f, size in manifest.files.items() if f not in old}
        sums = {f: value for f, value in manifest.checksums.items() if f not in old}
        files[name], sums[name] = len(data), checksum(data)
        updated = replace(manifest, files=files, checksums=sums)
        sync_folder(folder)
        replace_file(folder / MANIFEST_FILE, updated.to_json().encode())
        known = set(updated.files)
        for file in old:
            (folder / file).unlink(missing_ok=True)
    except OSError as error:
        if name not in known:
            (folder / name).unlink(missing_ok=True)
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        os.close(lock)
    return Store(folder, updated, store.config)
