"""A GGUF file run as it is: a store whose experts stay in the file and are packed while they are read.

    store = open_runnable("olmoe-q4_k_m.gguf")     # or the folder of a store

Prepared once, in a folder of the user's cache that the file's place, size and time of change name: its
configuration, tokenizer and dense weights, packed, and where each expert's blocks lie. Checksums of experts
are made when they are first read and compared from then on. The tokens are those of the store that ``edgemoe
convert`` makes of the file: records get the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from edgemoe import native
from edgemoe.checkpoint import GgufCheckpoint, is_gguf
from edgemoe.convert.conversion import Conversion
from edgemoe.convert.preview import plan_as_stored
from edgemoe.errors import CheckpointError, ConversionError, StoreError
from edgemoe.native import BlockSlice, ByteArray
from edgemoe.quant import BitPlan, exact_format
from edgemoe.store import (
    BLOCKS_FILE,
    NOT_YET_READ,
    VIRTUAL_FILE,
    BlockMap,
    BlockStore,
    ExpertEntry,
    Manifest,
    Store,
    StoreWriter,
    expert_num_bytes,
    open_block_store,
    open_store,
    plan_layout,
    stamp_of,
)
from edgemoe.store.durable import failing_clearly
from edgemoe.user_folders import CACHE_VARIABLE, user_cache


def open_runnable(path: str | Path) -> Store:
    """The store at ``path``, or the one that a GGUF file is run as.

    Raises:
        StoreError: see ``open_store``.
        CheckpointError: the file cannot be run, or not without converting it.
        ConversionError: it could not be prepared.
    """
    file = Path(path)
    return open_gguf(file) if is_gguf(file) else open_store(path)


def open_gguf(path: Path) -> BlockStore:
    """The store that a GGUF file is run as, prepared if this is the first time; see ``open_runnable``."""
    source = GgufCheckpoint(path)
    try:
        folder = _folder(source.paths())
        with contextlib.suppress(StoreError):
            return open_block_store(folder, str(path))
        if folder.exists():  # damaged, or of another version
            shutil.rmtree(folder, ignore_errors=True)
        try:
            _prepare(source, folder)
        except ConversionError as error:
            # Another process may just have been faster.
            with contextlib.suppress(StoreError):
                return open_block_store(folder, str(path))
            raise ConversionError(
                f"{path}: what is prepared of it cannot be kept: {error};"
                f" set {CACHE_VARIABLE} to a folder with room that can be written"
            ) from error
    finally:
        source.close()
    _forget_earlier(folder)
    return open_block_store(folder, str(path))


def _folder(paths: list[Path]) -> Path:
    """Where the store of these files is kept: another place once one of them has changed."""
    digest = hashlib.sha256(f"{version('edgemoe')} {native.LAYOUT_VERSION}".encode())
    for path in paths:
        num_bytes, time_ns = stamp_of(path)
        digest.update(f"{path} {num_bytes} {time_ns}\n".encode())
    place = hashlib.sha256(str(paths[0]).encode()).hexdigest()[:8]
    return user_cache() / "gguf" / f"{paths[0].stem}-{place}-{digest.hexdigest()[:16]}"


def _prepare(source: GgufCheckpoint, folder: Path) -> None:
    with failing_clearly(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    parts = _Parts(source, plan_as_stored(source))
    side_files = {**parts.side_files(), BLOCKS_FILE: parts.blocks().to_json().encode()}
    with StoreWriter(folder, parts.layout, parts.identity(), waits=True) as writer:
        for name, _, chunks in parts.tensors():
            if name not in writer.checksums:
                writer.write(name, chunks)
        writer.finish(parts.manifest(writer, side_files), side_files)


def _forget_earlier(folder: Path) -> None:
    """Stores of what the file was before it changed."""
    stem = folder.name[:-16]
    for other in folder.parent.iterdir():
        if other != folder and other.name.startswith(stem) and len(other.name) == len(folder.name):
            shutil.rmtree(other, ignore_errors=True)


class _Parts(Conversion):
    """What of a file is written: all but the experts."""

    def __init__(self, source: GgufCheckpoint, plan: BitPlan) -> None:
        super().__init__(source, plan)
        self._file = source
        self._stamps = [stamp_of(path) for path in source.paths()]
        self.layout = plan_layout(self._dense, (), self.spec.width)

    def tensors(self) -> Iterator[tuple[str, int, Iterator[ByteArray]]]:
        """Every dense tensor; see Conversion."""
        for name, place in self.layout.dense.items():
            yield name, place.num_bytes, self._dense_chunks(name)

    def manifest(self, writer: StoreWriter, side_files: dict[str, bytes]) -> Manifest:
        """The manifest, with the experts one behind the other in a file that is nowhere."""
        found = super().manifest(writer, side_files)
        experts, offset = {}, 0
        for key, formats in self._formats.items():
            num_bytes = expert_num_bytes(formats, *self.spec.expert_sizes(key[0]))
            experts[key] = ExpertEntry(formats, VIRTUAL_FILE, offset, num_bytes, NOT_YET_READ)
            offset += num_bytes
        return Manifest(
            found.generator,
            found.plan,
            {**found.files, VIRTUAL_FILE: offset},
            found.checksums,
            found.dense,
            experts,
        )

    def blocks(self) -> BlockMap:
        """Where every expert's blocks lie.

        Raises:
            CheckpointError: some are of a type that no format holds.
        """
        paths = self._file.paths()
        records, offset = [], 0
        for key, formats in self._formats.items():
            slices = []
            for projection, (_, num_cols) in self.spec.expert_shapes(key[0]).items():
                ref, format = self._sources.experts[key[0], key[1], projection], getattr(formats, projection)
                dtype = self._stored[ref.name].dtype
                place = self._file.place(ref) if format == exact_format(dtype) else None
                if place is None:
                    raise CheckpointError(
                        f"{paths[0]}: tensor {ref.name} ({dtype}) cannot be run as it is; make a store of the"
                        " file with `edgemoe convert`"
                    )
                path, start, num_rows = place
                slices.append(BlockSlice(paths.index(path), start, format, num_rows, num_cols))
            records.append((offset, slices))
            offset += expert_num_bytes(formats, *self.spec.expert_sizes(key[0]))
        return BlockMap(paths, records, self._stamps)
