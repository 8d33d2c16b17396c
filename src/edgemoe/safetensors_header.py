"""The header of a safetensors file: where each tensor lies, read without touching the tensors.

A file is: u64 header length (little endian), that many bytes of JSON, then the tensors without gaps.
Read here by hand and not by the safetensors package, which maps the whole file into memory: mapped
pages would count against the memory budget.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgemoe.system import drop_from_cache

_LENGTH = struct.Struct("<Q")
# The limit of the safetensors package; a larger length is garbage.
_MAX_HEADER_BYTES = 100_000_000
# Bits of one value; values of less than a byte lie without gaps.
_DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16,
    "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
# More axes than tensors of weights have: shapes are counted before anything is multiplied.
_MAX_AXES = 16
_MAX_NUMBER = 1 << 60


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
    data_start = _LENGTH.size + length
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_no_name_twice)
        metadata = entries.pop("__metadata__", {})
        tensors = {name: _range(name, entry, data_start) for name, entry in entries.items()}
        _refuse_overlaps(tensors)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged safetensors header ({error!s:.200})") from error
    end = max((t.offset + t.num_bytes for t in tensors.values()), default=data_start)
    if end > file_num_bytes:
        raise ValueError(
            f"{path}: cut off, {file_num_bytes} bytes long but its tensors need {end}; fetch it again"
        )
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: damaged safetensors header (its metadata are no table)")
    return SafetensorsHeader(tensors, metadata, data_start)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name} stands there twice")
    return found


def _range(name: str, entry: Mapping[str, Any], data_start: int) -> TensorRange:
    begin, end = (_number(name, offset) for offset in entry["data_offsets"])
    if len(entry["shape"]) > _MAX_AXES:
        raise ValueError(f"tensor {name} has {len(entry['shape'])} axes")
    shape = tuple(_number(name, size) for size in entry["shape"])
    dtype = entry["dtype"]
    if dtype not in _DTYPE_BITS:
        raise ValueError(f"tensor {name} has type {dtype!r}, which is not known")
    if 8 * (end - begin) != math.prod(shape) * _DTYPE_BITS[dtype]:
        raise ValueError(f"tensor {name} has {end - begin} bytes, which is not {shape} of {dtype}")
    return TensorRange(dtype, shape, data_start + begin, end - begin)


def _number(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise ValueError(f"tensor {name} has an offset or size that cannot be")
    return value


def _refuse_overlaps(tensors: Mapping[str, TensorRange]) -> None:
    """Tensors that share bytes are none that the format's own library reads."""
    places = sorted((t.offset, t.offset + t.num_bytes, name) for name, t in tensors.items() if t.num_bytes)
    for (_, end, first), (begin, _, second) in pairwise(places):
        if end > begin:
            raise ValueError(f"tensors {first} and {second} share bytes")


def build_header(tensors: Iterable[tuple[str, int]], metadata: Mapping[str, str], alignment: int) -> bytes:
    """Header of a file of U8 tensors (name, num_bytes) in this order, padded to ``alignment``."""
    return build_typed_header(((name, "U8", (size,)) for name, size in tensors), metadata, alignment)


def build_typed_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str], alignment: int
) -> bytes:
    """Header of a file of tensors (name, dtype, shape) in this order, padded to ``alignment``."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + tensor_num_bytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    padding = -(_LENGTH.size + len(text)) % alignment
    # Trailing spaces are part of the format.
    return _LENGTH.pack(len(text) + padding) + text + b" " * padding


def dtype_bits(dtype: str) -> int:
    """Bits of one value."""
    return _DTYPE_BITS[dtype]


def tensor_num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of whole bytes."""
    return math.prod(shape) * _DTYPE_BITS[dtype] // 8


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
    drop_from_cache(descriptor, offset, num_bytes)
    return parts[0] if len(parts) == 1 else b"".join(parts)
