"""Writes a store so that it is there as a whole or not at all.

Everything goes to a folder ``NAME.partial`` beside the target. Each tensor is written at its final place
and then entered in a journal; data is on disk before its journal line is. The manifest is written last and
the folder renamed. A writer that finds the journal of the same conversion goes on where it ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import xxhash

from edgemoe.errors import ConversionError
from edgemoe.native import ByteArray
from edgemoe.store import journal
from edgemoe.store.durable import LOCK_FILE, failing_clearly, lock_folder, sync_folder, write_file
from edgemoe.store.format import MANIFEST_FILE, Manifest, expert_name
from edgemoe.store.layout import StoreLayout
from edgemoe.store.retire import remove_set_aside, set_aside
from edgemoe.system import drop_from_cache, sync_data
from edgemoe.units import ceil_size, format_size

# Data is forced to disk, and its journal lines after it, each time this much has been written.
_SYNC_BYTES = 64 * 1024**2
# Manifest, configuration, tokenizer and the file system's own needs.
_DISK_MARGIN_BYTES = 32 * 1024**2


class StoreWriter:
    """Writes one store; a context manager that keeps the partial folder when it is left by an error.

    ``identity`` names the conversion (source, plan, versions): what another one left unfinished is thrown
    away, and ``has_restarted`` says so. ``waits``: for another that writes the same store.

    Raises:
        ConversionError: the target exists, the disk is too full, or another conversion writes it.
    """

    def __init__(
        self,
        target: Path,
        layout: StoreLayout,
        identity: str,
        overwrite: bool = False,
        *,
        waits: bool = False,
    ) -> None:
        # Where a link leads to is what is made or replaced: the link stays, and so does the disk it chose.
        self._target = target = Path(os.path.realpath(target))
        self._layout = layout
        self._overwrite = overwrite
        self._places = {**layout.dense, **{expert_name(key): place for key, place in layout.experts.items()}}
        self._partial = target.with_name(target.name + ".partial")
        self._descriptors: dict[str, int] = {}
        self._unsynced: dict[str, str] = {}
        self._num_unsynced_bytes = 0
        self._refuse_existing()
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._failing_clearly())
            self._lock = lock_folder(self._partial, waits=waits)
            undo.callback(self._release)
            self._refuse_existing()  # again: it may have appeared while the lock was another's
            self._refuse_foreign()
            self._check_disk()
            self._journal = journal.Journal(self._partial / journal.FILE, identity)
            undo.callback(self._journal.close)
            self.has_restarted = self._journal.is_other
            self._checksums = self._resume()
            undo.pop_all()
        self.num_resumed_bytes = sum(self._places[name].num_bytes for name in self._checksums)

    @property
    def checksums(self) -> Mapping[str, str]:
        """Checksum by name of every tensor that has been written, in this run or an earlier one."""
        return self._checksums

    def write(self, name: str, chunks: Iterable[ByteArray]) -> str:
        """Write a tensor's bytes, chunk by chunk, at its place; returns the checksum.

        Bytes short of the place's size are zeros.

        Raises:
            ConversionError: the disk is full or failed.
        """
        place = self._places[name]
        digest = xxhash.xxh3_64()
        offset = place.offset
        end = offset + place.num_bytes
        for chunk in chunks:
            assert offset + len(chunk) <= end, f"{name} is longer than its place"
            digest.update(chunk.data)
            self._write_at(place.file, chunk.data, offset)
            offset += len(chunk)
        padding = bytes(end - offset)
        digest.update(padding)
        self._write_at(place.file, memoryview(padding), offset)
        self._checksums[name] = self._unsynced[name] = digest.hexdigest()
        self._num_unsynced_bytes += place.num_bytes
        if self._num_unsynced_bytes >= _SYNC_BYTES:
            self._sync()
        return self._checksums[name]

    def finish(self, manifest: Manifest, side_files: Mapping[str, bytes]) -> None:
        """Write the side files and the manifest, force all to disk, and give the folder its name.

        Raises:
            ConversionError: the disk is full or failed.
        """
        with self._failing_clearly():
            self._sync()
            for name, data in side_files.items():
                write_file(self._partial / name, data)
            write_file(self._partial / MANIFEST_FILE, manifest.to_json().encode())
            sync_folder(self._partial)
            if self._overwrite and self._target.exists():
                set_aside(self._target)
            self._partial.rename(self._target)
            # Journal and lock until here: killed before, all that was written still counts.
            (self._target / journal.FILE).unlink()
            (self._target / LOCK_FILE).unlink()
            sync_folder(self._target)
            sync_folder(self._target.parent)
            remove_set_aside(self._target)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            # Keep what an interrupted run has done; a failure of that must not hide the first.
            with contextlib.suppress(ConversionError):
                self._sync()
        self._journal.close()
        self._close_files()
        os.close(self._lock)

    def _refuse_existing(self) -> None:
        if self._target.is_symlink():
            raise ConversionError(f"{self._target}: is a link that leads to itself; choose another name")
        if not self._target.exists():
            return
        if not (self._target / MANIFEST_FILE).is_file():
            raise ConversionError(
                f"{self._target}: is not a store, so it is not replaced; choose another name"
            )
        if not self._overwrite:
            raise ConversionError(f"{self._target}: already exists; choose another name or pass --overwrite")

    def _refuse_foreign(self) -> None:
        """Everything in a partial folder may be deleted, so it must be one of ours."""
        names = {path.name for path in self._partial.iterdir()} - {LOCK_FILE}
        if names and journal.FILE not in names:
            raise ConversionError(
                f"{self._partial}: holds files that no conversion wrote; move it away or choose another name"
            )

    def _release(self) -> None:
        """Give up before anything was written; a folder made for it goes again."""
        with contextlib.suppress(OSError):
            (self._partial / LOCK_FILE).unlink()
            self._partial.rmdir()
        os.close(self._lock)
        self._close_files()

    def _resume(self) -> dict[str, str]:
        """Checksums of what an earlier run of this conversion wrote; without any, empties the folder."""
        sizes = {path.name: path.stat().st_size for path in self._partial.iterdir()}
        if not all(self._is_there(name, sizes) for name in self._journal.checksums):
            # Somebody removed files: what the journal promises is not there.
            self._journal.restart()
            self.has_restarted = True
        if not self._journal.checksums:
            for name in sizes.keys() - {LOCK_FILE, journal.FILE}:
                (self._partial / name).unlink()
        for file, header in self._layout.headers.items():
            self._write_at(file, memoryview(header), 0)
        sync_folder(self._partial)
        return dict(self._journal.checksums)

    def _is_there(self, name: str, sizes: Mapping[str, int]) -> bool:
        place = self._places.get(name)
        return place is not None and sizes.get(place.file, 0) >= place.offset + place.num_bytes

    def _check_disk(self) -> None:
        stat = os.statvfs(self._partial)
        free = stat.f_bavail * stat.f_frsize
        needed = self._layout.num_bytes + _DISK_MARGIN_BYTES
        needed -= sum(path.stat().st_blocks * 512 for path in self._partial.iterdir())
        if needed > free:
            raise ConversionError(
                f"{self._partial.parent}: the store needs {format_size(needed)} more, {format_size(free)} are"
                f" free; free {ceil_size(needed - free)} or choose another place"
            )

    def _write_at(self, file: str, view: memoryview, offset: int) -> None:
        with self._failing_clearly():
            if file not in self._descriptors:
                flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
                self._descriptors[file] = os.open(self._partial / file, flags, 0o644)
            while view:
                count = os.pwrite(self._descriptors[file], view, offset)
                view, offset = view[count:], offset + count

    def _sync(self) -> None:
        with self._failing_clearly():
            for descriptor in self._descriptors.values():
                sync_data(descriptor)
                drop_from_cache(descriptor)
            self._journal.append(self._unsynced)
        self._unsynced.clear()
        self._num_unsynced_bytes = 0

    def _failing_clearly(self) -> contextlib.AbstractContextManager[None]:
        return failing_clearly(self._partial.parent, "repeat the command, it resumes")

    def _close_files(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
