"""The store: a model as EdgeMoE keeps it on disk. This docstring is the specification, version 1.

Goals: one direct read fetches one expert; damage is found before it is computed with; standard tools
open every file; an interrupted conversion resumes. Non-goals: being edited in place, holding several
models, carrying code.

A store is a folder with
  config.json, tokenizer.json, ...   as in the checkpoint
  dense.safetensors                  non-expert tensors, each U8, its bytes padded to 64
  experts-00000.safetensors, ...     experts, each one U8 tensor ``layers.{l}.experts.{e}``
  edgemoe.json                       the manifest, written last: a folder without it is no store

Every safetensors header is padded so that data starts at a multiple of 4096. An expert record holds the
packed gate, up and down (native/kernels/layout.h) one after the other, each a multiple of 64 bytes long,
padded with zeros to a multiple of 4096; so every record's offset is a multiple of 4096 too. Experts of some
families have no gate: their records hold up and down. With an encoder, its layers come before the decoder's.
Dense tensors with two axes are packed in their format; those with one axis are float32, little endian.

The manifest is JSON:
  version        1
  layout         LAYOUT_VERSION of the packed formats
  generator      name and version of the program that wrote it
  plan           where the bit widths came from
  files          every other file of the store and its size
  checksums      those of the files that are not safetensors
  dense          name -> format, shape, file, offset (from the start of the file), num_bytes, checksum
  experts        "layer.expert" -> formats (gate, up, down, or up, down), file, offset, num_bytes, checksum
A checksum is the xxh3_64 of the stored bytes including padding, in hex.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from edgemoe.native import LAYOUT_VERSION, ByteArray, Matrix, packed_num_bytes
from edgemoe.quant import ExpertFormats

VERSION = 1
MANIFEST_FILE = "edgemoe.json"
DENSE_FILE = "dense.safetensors"
RECORD_ALIGNMENT = 4096
DENSE_ALIGNMENT = 64
VECTOR_FORMAT = "f32"

# A file that was added to a finished store (attach.py); the model is whole without it.
ATTACHED = re.compile(r".+-[0-9a-f]{16}\.\w+")

ExpertKey = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DenseEntry:
    """A non-expert tensor: one axis float32 as it is, two axes packed."""

    format: str
    shape: tuple[int, ...]
    file: str
    offset: int
    num_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class ExpertEntry:
    """One expert's record."""

    formats: ExpertFormats
    file: str
    offset: int
    num_bytes: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What a store holds and where."""

    generator: str
    plan: Mapping[str, Any]
    files: Mapping[str, int]
    checksums: Mapping[str, str]
    dense: Mapping[str, DenseEntry]
    experts: Mapping[ExpertKey, ExpertEntry]

    def to_json(self) -> str:
        """The text of edgemoe.json."""
        fields = {
            "version": VERSION,
            "layout": LAYOUT_VERSION,
            "generator": self.generator,
            "plan": dict(self.plan),
            "files": dict(self.files),
            "checksums": dict(self.checksums),
            "dense": {name: _fields(entry) for name, entry in self.dense.items()},
            "experts": {f"{layer}.{e}": _fields(entry) for (layer, e), entry in self.experts.items()},
        }
        return json.dumps(fields, indent=1)


def expert_name(key: ExpertKey) -> str:
    """The name of an expert's tensor."""
    return f"layers.{key[0]}.experts.{key[1]}"


def checksum(data: ByteArray | bytes) -> str:
    """Checksum of stored bytes, 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(data if isinstance(data, bytes) else data.data)


def aligned(num_bytes: int, alignment: int) -> int:
    """The next multiple of ``alignment``."""
    return -(-num_bytes // alignment) * alignment


def dense_num_bytes(format: str, shape: tuple[int, ...]) -> int:
    """Stored bytes of a dense tensor, padding included."""
    num_bytes = 4 * shape[0] if len(shape) == 1 else packed_num_bytes(format, shape[0], shape[1])
    return aligned(num_bytes, DENSE_ALIGNMENT)


def expert_num_bytes(formats: ExpertFormats, width: int, expert_width: int) -> int:
    """Bytes of an expert's record: gate, if it has one, and up (F, D), down (D, F)."""
    *raised, down = formats.to_json()
    num_bytes = sum(packed_num_bytes(f, expert_width, width) for f in raised)
    return aligned(num_bytes + packed_num_bytes(down, width, expert_width), RECORD_ALIGNMENT)


def expert_matrices(
    record: ByteArray, formats: ExpertFormats, width: int, expert_width: int
) -> tuple[Matrix | None, Matrix, Matrix]:
    """gate, None where there is none, up and down as views into a record."""
    *raised, down = formats.to_json()
    matrices = []
    offset = 0
    for format, (rows, cols) in (
        *((f, (expert_width, width)) for f in raised),
        (down, (width, expert_width)),
    ):
        num_bytes = packed_num_bytes(format, rows, cols)
        matrices.append(Matrix(record[offset : offset + num_bytes], format, rows, cols))
        offset += num_bytes
    return matrices[0] if formats.gate is not None else None, matrices[-2], matrices[-1]


def _fields(entry: DenseEntry | ExpertEntry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in entry.__slots__}
    if isinstance(entry, ExpertEntry):
        fields["formats"] = entry.formats.to_json()
    return fields
