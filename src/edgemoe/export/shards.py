"""Writing a checkpoint folder as Hugging Face has them: safetensors files of bounded size, an index, and the
files beside them.

The folder has a name of its own, OUT.partial, until it is whole and on disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import numpy as np

from edgemoe.errors import ConversionError
from edgemoe.export.disk import check_room, write_at
from edgemoe.json_object import read_json_object
from edgemoe.native import ByteArray
from edgemoe.safetensors_header import build_typed_header, dtype_bits, tensor_num_bytes
from edgemoe.source_ref import Shape
from edgemoe.store.durable import LOCK_FILE, failing_clearly, lock_folder, sync_folder, write_file
from edgemoe.store.retire import remove_set_aside, set_aside
from edgemoe.system import sync_file

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# The key in the index that says who made the folder.
_MARK = "made_by"
# As the Hub has them, so that a broken download costs one file of many.
MAX_SHARD_BYTES = 4 << 30
# Programs read the first tensor of a file where it lies.
_ALIGNMENT = 64
# What an export that was killed may have left; of one that came to the files beside the tensors, the index
# says so.
_OURS = re.compile(rf"model-\d{{5}}-of-\d{{5}}\.safetensors|{re.escape(INDEX)}|{LOCK_FILE}")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint: its name, type and shape."""

    name: str
    dtype: str
    shape: Shape

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes."""
        return tensor_num_bytes(self.dtype, self.shape)


class CheckpointFolder:
    """A folder being written; a context manager that leaves nothing behind unless ``finish`` was called."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Nothing is written before ``begin``.

        Raises:
            ConversionError: the path is taken.
        """
        self._path = path = Path(os.path.realpath(path))
        self._overwrite = overwrite
        self._partial = path.with_name(f"{path.name}.partial")
        self._places: dict[str, tuple[int, int]] = {}
        self._descriptors: list[int] = []
        self._lock: int | None = None
        self._refuse_taken()

    def begin(self, groups: Iterable[tuple[StoredTensor, ...]], max_shard: int = MAX_SHARD_BYTES) -> int:
        """Make the files with their headers and the index. Tensors of a group go into one file.

        Returns the bytes of all files.

        Raises:
            ConversionError: there is no room, no such folder, or another process writes it.
        """
        shards = cut_shards(groups, max_shard)
        total = sum(tensor.num_bytes for shard in shards for tensor in shard)
        check_room(self._path, total)
        with failing_clearly(self._path):
            self._take_partial()
            self._refuse_taken()  # again: another process may have finished it meanwhile
            files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
            num_bytes = sum(self._make(name, shard) for name, shard in zip(files, shards, strict=True))
            held = {t.name: name for name, shard in zip(files, shards, strict=True) for t in shard}
            metadata = {"total_size": total, _MARK: f"edgemoe {version('edgemoe')}"}
            index = {"metadata": metadata, "weight_map": dict(sorted(held.items()))}
            data = json.dumps(index, indent=2).encode()
            write_file(self._partial / INDEX, data)
        return num_bytes + len(data)

    def write(self, name: str, data: ByteArray, offset: int = 0) -> None:
        """Bytes of a tensor from an offset within it on.

        Raises:
            ConversionError: the disk is full or failed.
        """
        number, place = self._places[name]
        with failing_clearly(self._path):
            write_at(self._descriptors[number], data, place + offset)

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Write the other files, force all to disk, and give the folder its name.

        Raises:
            ConversionError: the disk is full or failed.
        """
        with failing_clearly(self._path):
            for descriptor in self._descriptors:
                sync_file(descriptor)
            for name, data in files.items():
                write_file(self._partial / name, data)
            sync_folder(self._partial)
            if self._overwrite and self._path.exists():
                set_aside(self._path)
            self._partial.rename(self._path)
            (self._path / LOCK_FILE).unlink()
            sync_folder(self._path)
            sync_folder(self._path.parent)
            remove_set_aside(self._path)

    def __enter__(self) -> CheckpointFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        if self._lock is not None:
            if self._partial.is_dir():
                shutil.rmtree(self._partial, ignore_errors=True)
            os.close(self._lock)

    def _refuse_taken(self) -> None:
        path = self._path
        if path.is_symlink() or not path.name:
            raise ConversionError(f"{path} is no name for a new folder; give one such as olmoe-w4a16")
        if not path.exists():
            return
        if not self._overwrite:
            raise ConversionError(f"{path} exists; choose another place or give --overwrite")
        if not _is_export(path):
            raise ConversionError(
                f"{path} is no export of a store, so it is not replaced; choose another place"
            )

    def _take_partial(self) -> None:
        """Make the partial folder, or empty the one that a killed export left."""
        lock = lock_folder(self._partial)
        try:
            names = {path.name for path in self._partial.iterdir()}
            if not all(map(_OURS.fullmatch, names)) and not _is_export(self._partial):
                raise ConversionError(
                    f"{self._partial} holds files that no export wrote; move it away or choose another place"
                )
            for name in names - {LOCK_FILE}:
                (self._partial / name).unlink()
        except BaseException:
            (self._partial / LOCK_FILE).unlink(missing_ok=True)
            os.close(lock)
            raise
        self._lock = lock

    def _make(self, name: str, shard: list[StoredTensor]) -> int:
        """A file with its header, as long as it will be; returns its bytes."""
        # The widest values first: so each lies at a multiple of its size.
        ordered = sorted(shard, key=lambda tensor: -dtype_bits(tensor.dtype))
        header = build_typed_header(
            ((t.name, t.dtype, t.shape) for t in ordered), {"format": "pt"}, _ALIGNMENT
        )
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        descriptor = os.open(self._partial / name, flags, 0o644)
        self._descriptors.append(descriptor)
        write_at(descriptor, np.frombuffer(header, np.uint8), 0)
        end = len(header)
        for tensor in ordered:
            self._places[tensor.name] = (len(self._descriptors) - 1, end)
            end += tensor.num_bytes
        os.truncate(descriptor, end)
        return end


def _is_export(path: Path) -> bool:
    """Whether a folder was made here, and may be replaced."""
    try:
        metadata = read_json_object(path / INDEX).get("metadata")
    except (OSError, ValueError):
        return False
    return isinstance(metadata, dict) and _MARK in metadata


def cut_shards(groups: Iterable[tuple[StoredTensor, ...]], max_bytes: int) -> list[list[StoredTensor]]:
    """Groups of tensors in order, as many in a file as fit; a group that is larger is a file alone."""
    shards: list[list[StoredTensor]] = []
    room = 0
    for group in groups:
        num_bytes = sum(tensor.num_bytes for tensor in group)
        if not shards or num_bytes > room:
            shards.append([])
            room = max_bytes
        shards[-1].extend(group)
        room -= num_bytes
    return shards
