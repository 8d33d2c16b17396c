"""An opened store: its manifest, its dense weights, and where its experts lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.errors import CorruptStoreError, ExpertReadError, RequestError, StoreError
from edgemoe.json_object import parse_json_object
from edgemoe.native import ByteArray, active_isa, aligned_empty
from edgemoe.progress import Progress
from edgemoe.safetensors_header import read_exactly, read_header
from edgemoe.store.expert_modules import MODULES_FILE
from edgemoe.store.expert_reader import Device, ExpertReader, open_reader
from edgemoe.store.format import (
    ATTACHED,
    DENSE_FILE,
    MANIFEST_FILE,
    RECORD_ALIGNMENT,
    DenseEntry,
    ExpertEntry,
    ExpertKey,
    Manifest,
    aligned,
    checksum,
    expert_name,
)
from edgemoe.store.library import find_in_library
from edgemoe.store.manifest import read_manifest

# Reads at a time that suit local storage. One place stays free for what is needed now, so one alone would
# never read ahead.
DEPTHS = (2, 4, 8)


class Store:
    """A store whose manifest has been read and whose files have the sizes it says."""

    def __init__(
        self, path: Path, manifest: Manifest, config: dict[str, Any], notes: tuple[str, ...] = ()
    ) -> None:
        """``notes`` are lines about files that were added to the store and cannot be used."""
        self.notes = notes
        self.path = path
        self.config = config
        self._hold(manifest)

    def _hold(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.expert_files = sorted({entry.file for entry in manifest.experts.values()})
        self._file_indices = {file: index for index, file in enumerate(self.expert_files)}

    def part(self, manifest: Manifest) -> Store:
        """The same files, read by another manifest of them: all of it, or its layer for further tokens."""
        other = copy(self)
        other._hold(manifest)
        return other

    @property
    def name(self) -> str:
        """What messages and reports call it: its folder, or where it lies."""
        return str(self.path)

    @property
    def depths(self) -> tuple[int, ...]:
        """Numbers of reads at a time that are worth trying, the last one the most there will be."""
        return DEPTHS

    @property
    def reader_num_bytes(self) -> int:
        """Memory that its reader takes for each read under way, besides the record that it reads into."""
        return 0

    def open_expert_reader(
        self, kind: str = "auto", max_depth: int = 4, device: Device | None = None
    ) -> ExpertReader:
        """A reader of the expert files, numbered as in ``expert_files``; see ``open_reader``."""
        return open_reader([self.path / file for file in self.expert_files], kind, max_depth, device)

    def with_tier(self, num_bytes: int) -> Store:
        """The store with so many bytes of this disk for experts that lie far.

        Raises:
            RequestError: they lie on this disk.
        """
        raise RequestError(f"{self.name} lies on this disk; a tier (--tier) is for stores at a URL")

    def sample(self, reader: ExpertReader, count: int) -> tuple[ExpertReader, list[ExpertEntry]]:
        """A reader, and so many experts or fewer, by which to measure how fast ``reader`` will mostly be."""
        return reader, list(self.manifest.experts.values())[:count]

    def file_index(self, entry: ExpertEntry) -> int:
        """The number of an expert's file for that reader."""
        return self._file_indices[entry.file]

    def verify_expert(self, key: ExpertKey, record: ByteArray) -> None:
        """Compare a record that was read with its checksum.

        Raises:
            CorruptStoreError: naming file, expert and offset.
        """
        if not self.is_sound(key, record):
            raise self.damage_error(key)

    def is_sound(self, key: ExpertKey, record: ByteArray) -> bool:
        """Whether a record that was read is as it was written."""
        return checksum(record) == self.manifest.experts[key].checksum

    def expert_checksum(self, key: ExpertKey) -> int:
        """Checksum of a record as it was written; 0 where its first read has to say."""
        return int(self.manifest.experts[key].checksum, 16)

    def keep_checksums(self, found: Mapping[ExpertKey, int]) -> None:
        """Keep the checksums that first reads have made; 0 of what was not read. All are known here."""

    def damage_error(self, key: ExpertKey) -> CorruptStoreError:
        """A damaged record of an expert as the error to raise."""
        return self._corrupt(f"layer {key[0]} expert {key[1]}", self.manifest.experts[key])

    def read_error(self, key: ExpertKey, reason: str | None) -> ExpertReadError:
        """A failed read of an expert as the error to raise."""
        entry = self.manifest.experts[key]
        return ExpertReadError(
            f"{self.path / entry.file}: layer {key[0]} expert {key[1]} at offset {entry.offset} cannot be"
            f" read: {reason}; check the storage, then run `edgemoe inspect --verify {self.path}`"
        )

    def read_dense(self, kind: str = "auto") -> dict[str, ByteArray]:
        """The stored bytes of every dense tensor, read around the page cache and verified.

        Costs the part of dense.safetensors that they lie in.

        Raises:
            CorruptStoreError: a tensor is damaged.
            StoreError: the file cannot be read.
        """
        entries = self.manifest.dense
        if not entries:  # a store of experts alone
            return {}
        begin = min(e.offset for e in entries.values()) // RECORD_ALIGNMENT * RECORD_ALIGNMENT
        end = max(e.offset + e.num_bytes for e in entries.values())
        buffer = aligned_empty(aligned(end - begin, RECORD_ALIGNMENT))
        _read_range(self.path / DENSE_FILE, buffer, begin, end, kind)
        tensors = {}
        for name, entry in entries.items():
            data = buffer[entry.offset - begin : entry.offset - begin + entry.num_bytes]
            self.verify_dense(name, data)
            tensors[name] = data
        return tensors

    def verify_dense(self, name: str, data: ByteArray) -> None:
        """Compare the stored bytes of a dense tensor, read elsewhere, with its checksum.

        Raises:
            CorruptStoreError: naming file, tensor and offset.
        """
        entry = self.manifest.dense[name]
        if checksum(data) != entry.checksum:
            raise self._corrupt(f"tensor {name}", entry)

    def verify(self, progress: Progress | None = None) -> Iterator[str]:
        """Read everything and yield one line for every damaged part; nothing when all is well."""
        if self.manifest.mtp is not None:
            yield from self.part(self.manifest.whole()).verify(progress)
            return
        yield from self.notes
        yield from header_damages(self.path / DENSE_FILE, self.manifest.dense)
        yield from self._expert_header_damages(self.path)
        total = sum(e.num_bytes for e in self.manifest.experts.values())
        try:
            self.read_dense()
        except StoreError as error:
            yield str(error)
        reader = self.open_expert_reader()
        buffer = aligned_empty(max((e.num_bytes for e in self.manifest.experts.values()), default=0))
        done = 0
        try:
            for key, entry in self.manifest.experts.items():
                record = buffer[: entry.num_bytes]
                try:
                    reader.wait(reader.submit(self.file_index(entry), entry.offset, record))
                    self.verify_expert(key, record)
                except CorruptStoreError as error:
                    yield str(error)
                except OSError as error:
                    yield str(self.read_error(key, error.strerror))
                done += entry.num_bytes
                if progress is not None:
                    progress(done, total)
        finally:
            reader.close()

    def _expert_header_damages(self, folder: Path) -> Iterator[str]:
        """Differences between expert files, of which the headers are in this folder, and the manifest."""
        for file in self.expert_files:
            inside = {expert_name(k): e for k, e in self.manifest.experts.items() if e.file == file}
            yield from header_damages(folder / file, inside)

    def _corrupt(self, what: str, entry: DenseEntry | ExpertEntry) -> CorruptStoreError:
        return CorruptStoreError(
            f"{self.path / entry.file}: {what} at offset {entry.offset} differs from what was written;"
            " convert the checkpoint again or copy the file anew"
        )


def open_store(
    path: str | Path,
    *,
    checks_attached: bool = True,
    has_expert_files: bool = True,
    has_dense_file: bool = True,
    experts_alone: bool = False,
) -> Store:
    """Open a store: read its manifest, configuration and tokenizer files, and check them.

    ``path`` is its folder, or its name in the user's library (library.py).

    What was added to the finished store and is damaged is left out, with a note: the model is whole without
    it. ``checks_attached``: False leaves it in as it is, for who replaces it. ``has_expert_files``: False
    where experts lie elsewhere (block_store.py), and ``has_dense_file`` where dense weights do too.
    ``experts_alone``: stores that hold nothing else are opened too (expert_modules.py).

    Raises:
        NotAStoreError: the folder has no manifest.
        StoreVersionError: another version wrote it.
        StoreError, CorruptStoreError: the manifest is garbage, or a file is missing or differs.
        RequestError: EDGEMOE_ISA names no instruction set that runs here.
    """
    active_isa()
    folder = Path(path)
    if not folder.exists():
        folder = find_in_library(path) or folder
    manifest = read_manifest(folder)
    if MODULES_FILE in manifest.files and not experts_alone:
        raise StoreError(
            f"{folder}: holds experts alone, for a model that transformers runs (docs/transformers.md);"
            " convert without --experts-only to run it here"
        )
    expert_files = {entry.file for entry in manifest.whole().experts.values()}
    needed = {DENSE_FILE, *expert_files}
    attached = {name for name in manifest.files if ATTACHED.fullmatch(name)} - needed
    here = manifest.files.keys() - attached
    here -= set() if has_expert_files else expert_files
    here -= set() if has_dense_file else {DENSE_FILE}
    for name in here:
        if damage := _damage(folder, name, manifest):
            raise CorruptStoreError(f"{damage}, or convert the checkpoint again")
    notes = []
    for name in attached if checks_attached else ():
        if damage := _damage(folder, name, manifest):
            notes.append(f"{damage}, or run `edgemoe fit` again; the store is run without it")
            manifest = _without(manifest, name)
    try:
        config = parse_json_object(_read_bytes(folder / "config.json"))
    except ValueError as error:
        raise StoreError(f"{folder / 'config.json'}: not a JSON object: {error}") from error
    return Store(folder, manifest, config, tuple(notes))


def _damage(folder: Path, name: str, manifest: Manifest) -> str | None:
    """What is wrong with a file, and half of what to do; None when it is as it was written."""
    file, size = folder / name, manifest.files[name]
    if not file.is_file():
        return f"{file}: missing from the store; copy the file anew"
    if file.stat().st_size != size:
        return f"{file}: has {file.stat().st_size} bytes, was written with {size}; copy the file anew"
    expected = manifest.checksums.get(name)
    if expected is not None and checksum(_read_bytes(file)) != expected:
        return f"{file}: differs from what was written; copy the file anew"
    return None


def leave_out(store: Store, name: str | None, note: str) -> Store:
    """The store without a file that was added to it, and with a note that says why."""
    manifest = store.manifest if name is None else _without(store.manifest, name)
    changed = copy(store)
    changed.manifest, changed.notes = manifest, (*store.notes, note)
    return changed


def _without(manifest: Manifest, name: str) -> Manifest:
    files = {file: size for file, size in manifest.files.items() if file != name}
    sums = {file: value for file, value in manifest.checksums.items() if file != name}
    return replace(manifest, files=files, checksums=sums)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error


def _read_range(path: Path, buffer: ByteArray, begin: int, end: int, kind: str) -> None:
    """Direct reads come in whole sectors; the tail of a range that is not one is read apart."""
    reader, num_bytes = open_reader([path], kind, max_depth=1), end - begin
    try:
        whole = num_bytes // RECORD_ALIGNMENT * RECORD_ALIGNMENT
        if whole:
            reader.wait(reader.submit(0, begin, buffer[:whole]))
        if whole < num_bytes:
            with path.open("rb") as file:
                tail = read_exactly(file.fileno(), num_bytes - whole, begin + whole)
            buffer[whole:num_bytes] = np.frombuffer(tail, np.uint8)
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{path}: cannot be read: {reason}") from error
    finally:
        reader.close()


def header_damages(path: Path, entries: Mapping[str, DenseEntry | ExpertEntry]) -> Iterator[str]:
    """Differences between a file's own header, which other tools go by, and the manifest."""
    try:
        tensors = read_header(path).tensors
    except (OSError, ValueError) as error:
        yield str(error)
        return
    for name, entry in entries.items():
        place = tensors.get(name)
        if place is None or (place.offset, place.num_bytes) != (entry.offset, entry.num_bytes):
            yield f"{path}: its header and {MANIFEST_FILE} differ about {name}"
