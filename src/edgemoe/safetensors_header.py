"""The header of a safetensors file: where each tensor lies, read without touching the tensors.

A file is: u64 header length (little endian), that many bytes of JSON, then the tensors without gaps.
Read here by hand and not by the safetensors package, which maps the whole file into memory: mapped
pages would count against the memory budget.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<Q")
# The limit of the safetensors package; a larger length is garbage.
_MAX_HEADER_BYTES = 100_000_000
_DTYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2,
    "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorRange:
    """Where one tensor lies; ``offset`` counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """All tensors of a file, its metadata, and where the data starts."""

    tensors: Mapping[str, TensorRange]
    metadata: Mapping[str, str]
    data_start: int


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of a file.

    Raises:
        ValueError: not a safetensors file, a damaged header, or a file shorter than its tensors.
        OSError: the file cannot be read.
    """
    file_num_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            raise ValueError(f"{path}: too short for a safetensors file")
        (length,) = _LENGTH.unpack(prefix)
        if length > _MAX_HEADER_BYTES or _LENGTH.size + length > file_num_bytes:
            raise ValueError(f"{path}: not a safetensors file, or cut off inside its header")
        text = file.read(length)
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", {})
        data_start = _LENGTH.size + length
        tensors = {name: _range(name, entry, data_start) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: damaged safetensors header ({error})") from error
    end = max((t.offset + t.num_bytes for t in tensors.values()), default=data_start)
    if end > file_num_bytes:
        raise ValueError(
            f"{path}: cut off, {file_num_bytes} bytes long but its tensors need {end}; fetch it again"
        )
    return SafetensorsHeader(tensors, metadata, data_start)


def _range(name: str, entry: Mapping[str, Any], data_start: int) -> TensorRange:
    begin, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    dtype = str(entry["dtype"])
    if begin < 0 or any(size < 0 for size in shape):
        raise ValueError(f"tensor {name} has a negative offset or size")
    if end - begin != math.prod(shape) * _DTYPE_BYTES[dtype]:
        raise ValueError(f"tensor {name} has {end - begin} bytes, which is not {shape} of {dtype}")
    return TensorRange(dtype, shape, data_start + begin, end - begin)


def build_header(tensors: Iterable[tuple[str, int]], metadata: Mapping[str, str], alignment: int) -> bytes:
    """Header of a file of U8 tensors (name, num_bytes) in this order, padded to ``alignment``."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, num_bytes in tensors:
        entries[name] = {
            "dtype": "U8",
            "shape": [num_bytes],
            "data_offsets": [offset, offset + num_bytes],
        }
        offset += num_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    padding = -(_LENGTH.size + len(text)) % alignment
    # Trailing spaces are part of the format.
    return _LENGTH.pack(len(text) + padding) + text + b" " * padding


def read_exactly(descriptor: int, num_bytes: int, offset: int) -> bytes:
    """``num_bytes`` at ``offset``; what the read leaves in the page cache is dropped.

    Raises:
        EOFError: the file ends before.
    """
    parts = []
    end = offset + num_bytes
    position = offset
    while position < end:
        part = os.pread(descriptor, end - position, position)
        if not part:
            raise EOFError(f"file ends at offset {position}, {end - position} bytes too early")
        parts.append(part)
        position += len(part)
    with contextlib.suppress(OSError):  # a hint, which some file systems refuse
        os.posix_fadvise(descriptor, offset, num_bytes, os.POSIX_FADV_DONTNEED)
    return parts[0] if len(parts) == 1 else b"".join(parts)
