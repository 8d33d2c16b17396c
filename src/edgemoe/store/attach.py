"""Adding a file to a finished store, such as what was fitted for it, so that a power cut loses nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

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
    """
    name = f"{stem}-{checksum(data)}{suffix}"
    folder = store.path
    # Another that attaches a file holds it for moments, and what is to be written may be the work of an hour.
    lock = lock_folder(folder, waits=True)
    try:
        manifest = open_store(folder, checks_attached=False).manifest
        old = {f for f in manifest.files if f.startswith(f"{stem}-") and f.endswith(suffix)} - {name}
        write_file(folder / name, data)
        files = {f: size for f, size in manifest.files.items() if f not in old}
        sums = {f: value for f, value in manifest.checksums.items() if f not in old}
        files[name], sums[name] = len(data), checksum(data)
        updated = replace(manifest, files=files, checksums=sums)
        sync_folder(folder)
        replace_file(folder / MANIFEST_FILE, updated.to_json().encode())
        _remove_unlisted(folder, stem, suffix)
    except BaseException as error:  # an interrupt too
        with suppress(OSError, StoreError):
            _remove_unlisted(folder, stem, suffix)
        if isinstance(error, OSError):
            raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
        raise
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        os.close(lock)
    return Store(folder, updated, store.config)


def _remove_unlisted(folder: Path, stem: str, suffix: str) -> None:
    """Remove files of such a name that the manifest does not list: the one before, and what a kill left."""
    listed = open_store(folder, checks_attached=False).manifest.files
    for path in folder.glob(f"{stem}-*{suffix}"):
        if path.name not in listed:
            path.unlink(missing_ok=True)
