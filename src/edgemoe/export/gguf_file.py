"""Writing a GGUF file: its beginning by the gguf package, its tensors where and when they are ready.

The file has a name of its own until it is whole and on disk.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgemoe.errors import ConversionError
from edgemoe.export.disk import check_room, write_at
from edgemoe.native import ByteArray
from edgemoe.source_ref import Shape
from edgemoe.store.durable import failing_clearly, lock_file, sync_folder
from edgemoe.system import sync_file


class GgufFile:
    """A file being written; a context manager that leaves nothing behind unless ``finish`` was called."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Nothing is written before ``begin``.

        Raises:
            ConversionError: the path is taken.
        """
        self._path, self._overwrite = path, overwrite
        self._refuse_existing()
        if path.name in ("", "..") or path.is_dir():
            raise ConversionError(f"{path} is no name for a new file; give one such as model.gguf")
        if path.is_symlink():  # it stays, and so does the disk that it chose
            self._path = path = Path(os.path.realpath(path))
        self._partial = path.with_name(f"{path.name}.partial")
        self._offsets: dict[str, int] = {}
        self._descriptor: int | None = None
        self._lock: int | None = None  # held while the file with a name of its own is ours

    def begin(
        self,
        architecture: str,
        keys: Mapping[str, Any],
        tensors: Mapping[str, tuple[Shape, str, int]],
    ) -> int:
        """Write everything but the tensors, which are given by shape, block type and bytes.

        Returns the size of the whole file.

        Raises:
            ConversionError: there is no room, no such folder, or another process writes the file.
        """
        from gguf import GGMLQuantizationType, GGUFWriter

        check_room(self._path, sum(num_bytes for *_, num_bytes in tensors.values()))
        with failing_clearly(self._path):
            self._lock = lock_file(self._partial)
            self._refuse_existing()  # again: another process may have finished it meanwhile
            writer = GGUFWriter(self._partial, architecture)
            for key, value in keys.items():
                _add_key(writer, key, value)
            for name, (shape, block_type, num_bytes) in tensors.items():
                kind = GGMLQuantizationType[block_type]
                writer.add_tensor_info(name, shape, np.dtype(np.float32), num_bytes, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            writer.close()
            end = writer.ggml_pad(self._partial.stat().st_size, writer.data_alignment)
            for name, (_, _, num_bytes) in tensors.items():
                self._offsets[name] = end
                end += writer.ggml_pad(num_bytes, writer.data_alignment)
            self._descriptor = os.open(self._partial, os.O_WRONLY | os.O_CLOEXEC)
            os.truncate(self._descriptor, end)
        return end

    def write(self, name: str, data: ByteArray, offset: int = 0) -> None:
        """Bytes of a tensor from an offset within it on.

        Raises:
            ConversionError: the disk is full or failed.
        """
        assert self._descriptor is not None, "begin comes first"
        with failing_clearly(self._path):
            write_at(self._descriptor, data, self._offsets[name] + offset)

    def finish(self) -> None:
        """Force the file to disk and give it its name."""
        assert self._descriptor is not None, "begin comes first"
        with failing_clearly(self._path):
            sync_file(self._descriptor)
            os.replace(self._partial, self._path)
            self._release()
            sync_folder(self._path.absolute().parent)

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)
            self._release()

    def _refuse_existing(self) -> None:
        if self._path.exists() and not self._path.is_file():
            raise ConversionError(f"{self._path} is no file, so it is not replaced; choose another place")
        if self._path.exists() and not self._overwrite:
            raise ConversionError(f"{self._path} exists; choose another place or give --overwrite")

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def tensor_num_bytes(shape: Shape, row_bytes: int) -> int:
    """Bytes of a tensor whose last axis takes so many."""
    return math.prod(shape[:-1]) * row_bytes


def _add_key(writer: Any, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
