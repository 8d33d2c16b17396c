"""Writing a store so that nothing is ever half there.

Everything goes to a folder ``NAME.partial`` beside the target. Each tensor is written at its final place
and then entered in a journal; data is on disk before its journal line is. The manifest is written last and
the folder renamed. A writer that finds the journal of the same conversion goes on where it ended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import xxhash

from edgemoe.errors import ConversionError
from edgemoe.native import ByteArray
from edgemoe.store.format import MANIFEST_FILE, Manifest
from edgemoe.store.layout import Place, StoreLayout
from edgemoe.units import ceil_size, format_size

_JOURNAL = "journal.jsonl"
_LOCK = "lock"
# Data is forced to disk, and its journal lines after it, each time this much has been written.
_SYNC_BYTES = 64 * 1024**2
# Manifest, configuration, tokenizer and the file system's own needs.
_DISK_MARGIN_BYTES = 32 * 1024**2


class StoreWriter:
    """Writes one store; a context manager that keeps the partial folder when it is left by an error.

    ``identity`` names the conversion (source, plan, versions): a journal of another one is discarded.

    Raises:
        ConversionError: the target exists, the disk is too full, or another conversion writes it.
    """

    def __init__(self, target: Path, layout: StoreLayout, identity: str, overwrite: bool = False) -> None:
        if target.exists() and not overwrite:
            raise ConversionError(f"{target}: already exists; choose another name or pass --overwrite")
        self._target = target
        self._layout = layout
        self._partial = target.with_name(target.name + ".partial")
        self._partial.mkdir(parents=True, exist_ok=True)
        self._lock = self._acquire_lock()
        self._descriptors: dict[str, int] = {}
        try:
            self._checksums = self._resume(identity)
            self.num_resumed_bytes = sum(self._place(name).num_bytes for name in self._checksums)
            self._check_disk()
            self._journal = (self._partial / _JOURNAL).open("a")
            if not self._checksums:
                self._start(identity)
        except BaseException:
            self._close_files()
            raise
        self._unsynced: list[str] = []
        self._num_unsynced_bytes = 0

    def checksum(self, name: str) -> str | None:
        """Checksum of a tensor that has been written, in this run or an earlier one; else None."""
        return self._checksums.get(name)

    def write(self, name: str, chunks: Iterable[ByteArray]) -> str:
        """Write a tensor's bytes, chunk by chunk, at its place; returns the checksum.

        Bytes short of the place's size are zeros.

        Raises:
            ConversionError: the disk is full or failed.
        """
        place = self._place(name)
        digest = xxhash.xxh3_64()
        offset = place.offset
        end = offset + place.num_bytes
        for chunk in chunks:
            digest.update(chunk.data)
            self._write_at(place.file, chunk.data, offset)
            offset += len(chunk)
        assert offset <= end, f"{name} is longer than its place"
        padding = bytes(end - offset)
        digest.update(padding)
        self._write_at(place.file, memoryview(padding), offset)
        checksum = digest.hexdigest()
        self._checksums[name] = checksum
        self._unsynced.append(json.dumps({"name": name, "checksum": checksum}))
        self._num_unsynced_bytes += place.num_bytes
        if self._num_unsynced_bytes >= _SYNC_BYTES:
            self._sync()
        return checksum

    def finish(self, manifest: Manifest, side_files: Mapping[str, bytes]) -> None:
        """Write the side files and the manifest, force all to disk, and give the folder its name."""
        try:
            self._sync()
            for name, data in side_files.items():
                _write_file(self._partial / name, data)
            _write_file(self._partial / MANIFEST_FILE, manifest.to_json().encode())
            for name in (_JOURNAL, _LOCK):
                (self._partial / name).unlink()
            _sync_folder(self._partial)
            old = self._target.with_name(self._target.name + ".old.partial")
            if self._target.exists():
                self._target.rename(old)
            self._partial.rename(self._target)
            _sync_folder(self._target.parent)
            if old.exists():
                shutil.rmtree(old)
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._partial.is_dir():
            self._sync_quietly()
        self._close_files()

    def _acquire_lock(self) -> int:
        descriptor = os.open(self._partial / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConversionError(f"{self._partial}: another conversion is writing it; wait for it") from None
        return descriptor

    def _resume(self, identity: str) -> dict[str, str]:
        """Checksums of what an earlier run of the same conversion wrote; else the folder is emptied."""
        lines = _journal_lines(self._partial / _JOURNAL)
        if lines and lines[0].get("identity") == identity:
            names = self._layout.dense.keys() | {_expert_name(key) for key in self._layout.experts}
            # A torn last line may have been followed by nothing; rewrite what was whole.
            _write_file(self._partial / _JOURNAL, "".join(json.dumps(x) + "\n" for x in lines).encode())
            return {x["name"]: x["checksum"] for x in lines[1:] if x.get("name") in names}
        for path in self._partial.iterdir():
            if path.name != _LOCK:
                path.unlink()
        return {}

    def _start(self, identity: str) -> None:
        for file, header in self._layout.headers.items():
            self._write_at(file, memoryview(header), 0)
        self._journal.seek(0)
        self._journal.truncate()
        self._journal.write(json.dumps({"identity": identity}) + "\n")
        self._journal.flush()

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

    def _place(self, name: str) -> Place:
        if name in self._layout.dense:
            return self._layout.dense[name]
        _, layer, _, expert = name.split(".")
        return self._layout.experts[int(layer), int(expert)]

    def _write_at(self, file: str, view: memoryview, offset: int) -> None:
        try:
            if file not in self._descriptors:
                flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
                self._descriptors[file] = os.open(self._partial / file, flags, 0o644)
            while view:
                count = os.pwrite(self._descriptors[file], view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise self._failure(error) from error

    def _sync(self) -> None:
        try:
            for descriptor in self._descriptors.values():
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            self._journal.writelines(line + "\n" for line in self._unsynced)
            self._journal.flush()
            os.fsync(self._journal.fileno())
        except OSError as error:
            raise self._failure(error) from error
        self._unsynced.clear()
        self._num_unsynced_bytes = 0

    def _sync_quietly(self) -> None:
        """Keep what an interrupted run has done; an error of its own must not hide the first."""
        try:
            self._sync()
        except ConversionError:
            self._unsynced.clear()

    def _failure(self, error: OSError) -> ConversionError:
        where = self._partial.parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return ConversionError(f"{where}: disk full; free some space and repeat the command, it resumes")
        return ConversionError(f"{where}: cannot be written: {error.strerror}; repeating the command resumes")

    def _close_files(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        if hasattr(self, "_journal"):
            self._journal.close()
        os.close(self._lock)


def _expert_name(key: tuple[int, int]) -> str:
    return f"layers.{key[0]}.experts.{key[1]}"


def _journal_lines(path: Path) -> list[dict[str, str]]:
    """Whole lines of a journal; a torn one ends it."""
    lines: list[dict[str, str]] = []
    if not path.is_file():
        return lines
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
