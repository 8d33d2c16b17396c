"""The beginning of a GGUF file: metadata and where each tensor lies, read without touching the tensors.

A file is: magic, version, numbers of tensors and of keys; the keys with typed values; name, shape, type and
place of each tensor; then, aligned, the tensors. Goals: nothing in it is believed before it is held against
the size of the file, so that a small file costs little memory and time whatever it claims; memory for the
values alone. Not goals: writing, version 1.

Read by hand and not by the gguf package, which believes counts, keeps an array for every string of a
vocabulary, maps the whole file (mapped pages would count against the memory of a conversion) and calls files
with a type that it does not know damaged.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from edgemoe.checkpoint.gguf.block_types import BlockType, find_block_type
from edgemoe.checkpoint.stand_ins import START_BYTES, stand_in
from edgemoe.errors import CheckpointError

MAGIC = b"GGUF"
_OLDER = (b"GGML", b"lmgg", b"ggml", b"tjgg", b"fmgg", b"GGJT", b"GGMF")
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MAX_DIMS = 4
_MAX_NESTING = 4
_STRING, _ARRAY = 8, 9
# Number of a type of value → its code for struct; strings and arrays are not among them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# The fewest bytes that a key with its value, and the description of a tensor, take.
_MIN_KEY_BYTES, _MIN_TENSOR_BYTES = 13, 32


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies; shape as in NumPy, the longest stride first. Rows are whole blocks."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    path: Path
    offset: int  # from the beginning of the file
    is_big_endian: bool = False

    @property
    def row_num_bytes(self) -> int:
        """Bytes of one row, the last axis."""
        return self.shape[-1] // self.type.num_values * self.type.num_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape[:-1]) * self.row_num_bytes


@dataclass(frozen=True)
class GgufFile:
    """What one file says, and its tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_container(path: Path) -> GgufFile:
    """Read and check the beginning of a file.

    Raises:
        CheckpointError: it is no GGUF file, damaged, cut short, or has a block type that is not read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return read_header(file, size, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_header(file: BinaryIO, num_bytes: int, path: Path) -> GgufFile:
    """The same of an open file that has so many bytes in all; it is read up to its last tensor's description.

    ``path`` is what messages call it. Raises as ``read_container``, and what reading raises.
    """
    reader = _Reader(file, num_bytes, path)
    num_tensors, num_keys = reader.read_start()
    metadata = reader.read_metadata(num_keys)
    return GgufFile(metadata, reader.read_tensors(num_tensors, metadata))


class _Reader:
    """Reads forward; every length is held against what is left of the file."""

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self._file, self._size, self._path = file, size, path
        self._position = 0
        self._order = "<"

    def read_start(self) -> tuple[int, int]:
        """Numbers of tensors and of keys."""
        magic = self._take(4) if self._size >= 4 else b""
        if magic in _OLDER:
            raise self._error("is a GGML file of before GGUF, which is not read; get the model as GGUF")
        if magic != MAGIC:
            start = magic + self._file.read(START_BYTES - len(magic))
            raise self._error(
                stand_in(start) or f"not a GGUF file, begins with {start[:8]!r}; fetch it again"
            )
        version = self._number("I")
        if version & 0xFFFF == 0:
            self._order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in _VERSIONS:
            raise self._error(f"is of GGUF version {version}; versions 2 and 3 are read")
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        if num_tensors * _MIN_TENSOR_BYTES + num_keys * _MIN_KEY_BYTES > self._size:
            raise self._error(f"claims {num_tensors} tensors and {num_keys} keys, more than fit its size")
        return num_tensors, num_keys

    def read_metadata(self, num_keys: int) -> dict[str, Any]:
        """All keys with their values."""
        metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._name("a key of its metadata")
            if key in metadata:
                raise self._error(f"has the key {key!r} twice")
            metadata[key] = self._value(self._number("I"), key, 0)
        return metadata

    def read_tensors(self, num_tensors: int, metadata: dict[str, Any]) -> dict[str, GgufTensor]:
        """All tensors; their places are known once all have been described."""
        described = [self._describe() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._error(f"general.alignment is {alignment!r:.40}, no power of two")
        start = self._position + -self._position % alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, number, offset in described:
            if name in tensors:
                raise self._error(f"has the tensor {name} twice")
            kind = find_block_type(number, name, self._path)
            if shape[-1] % kind.num_values:
                raise self._error(f"tensor {name} has rows of {shape[-1]}, no whole blocks of {kind.name}")
            tensor = GgufTensor(name, shape, kind, self._path, start + offset, self._order == ">")
            if tensor.offset + tensor.num_bytes > self._size:
                raise self._error(f"cut short, tensor {name} ends behind its end; fetch it again")
            if offset % alignment:
                raise self._error(f"tensor {name} lies at no multiple of {alignment} bytes; fetch it again")
            tensors[name] = tensor
        self._refuse_overlap(tensors)
        return tensors

    def _refuse_overlap(self, tensors: dict[str, GgufTensor]) -> None:
        placed = sorted(tensors.values(), key=lambda tensor: tensor.offset)
        for first, second in pairwise(placed):
            if first.offset + first.num_bytes > second.offset:
                raise self._error(f"tensors {first.name} and {second.name} overlap; fetch it again")

    def _describe(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._name("the name of a tensor")
        num_dims = self._number("I")
        if not 1 <= num_dims <= _MAX_DIMS:
            raise self._error(f"tensor {name} has {num_dims} axes; 1 to {_MAX_DIMS} are possible")
        shape = tuple(reversed(self._numbers("Q", num_dims)))
        if min(shape) < 1:
            raise self._error(f"tensor {name} has shape {shape}, which is empty")
        return name, shape, self._number("I"), self._number("Q")

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY or depth >= _MAX_NESTING:
            raise self._error(f"key {key} has a value of type {kind}, which is not known")
        kind, count = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            return list(self._numbers(_SCALARS[kind], count))
        # A string takes its length at least, an array its type and length.
        if count * 8 > self._size - self._position:
            raise self._error(f"cut short, or key {key} claims {count} entries that are not there")
        return [self._value(kind, key, depth + 1) for _ in range(count)]

    def _name(self, what: str) -> str:
        data = self._take(self._number("Q"))
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._error(f"{what} is not UTF-8 ({data[:40]!r}); fetch it again") from None

    def _string(self) -> str:
        # Descriptions come in any encoding; nothing depends on them.
        return self._take(self._number("Q")).decode(errors="replace")

    def _number(self, code: str) -> Any:
        return self._numbers(code, 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[Any, ...]:
        num_bytes = struct.calcsize(code) * count
        if num_bytes > self._size - self._position:
            raise self._error("cut short inside its metadata; fetch it again")
        return struct.unpack(f"{self._order}{count}{code}", self._take(num_bytes))

    def _take(self, num_bytes: int) -> bytes:
        if num_bytes > self._size - self._position:
            raise self._error("cut short inside its metadata; fetch it again")
        data = self._file.read(num_bytes)
        if len(data) != num_bytes:
            raise self._error("cut short inside its metadata; fetch it again")
        self._position += num_bytes
        return data

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {what}")
