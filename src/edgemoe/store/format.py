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
packed gate, up and down (native/kernels/layout.h) one after the other as native/experts/record.h says, each a
multiple of 64 bytes long, padded with zeros to a multiple of 4096; so every record's offset is a multiple of
4096 too. Experts of some families have no gate: their records hold up and down. With an encoder, its layers
come before the decoder's. Dense tensors with two axes are packed in their format; those with one axis are
float32, little endian.

The manifest is JSON:
  version        1
  layout         LAYOUT_VERSION of the packed formats; formats themselves go by name, so new ones leave old
                 stores readable
  generator      name and version of the program that wrote it
  plan           where the bit widths came from
  files          every other file of the store and its size
  checksums      those of the files that are not safetensors
  checksum       that of the manifest's other fields, as JSON with sorted names and without spaces; stores of
                 before have none
  dense          name -> format, shape, file, offset (from the start of the file), num_bytes, checksum
  experts        "layer.expert" -> formats (gate, up, down, or up, down), file, offset, num_bytes, checksum
  mtp            only where there is a layer that predicts further tokens: "dense" and "experts" of it, as
                 above; their tensors are named ``mtp.{name}`` and, after the last layer, as those of one more
A checksum is the xxh3_64 of the stored bytes including padding, in hex.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from edgemoe.native import (
    LAYOUT_VERSION,
    ByteArray,
    ExpertWeights,
    Matrix,
    RecordPart,
    packed_num_bytes,
    record_parts,
)
from edgemoe.quant import ExpertFormats

VERSION = 1
MANIFEST_FILE = "edgemoe.json"
DENSE_FILE = "dense.safetensors"
RECORD_ALIGNMENT = 4096
DENSE_ALIGNMENT = 64
VECTOR_FORMAT = "f32"
MTP_PREFIX = "mtp."
CHECKSUM = "checksum"

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
class MtpEntries:
    """A layer that predicts further tokens: tensors by name in the file, experts as of one more layer."""

    dense: Mapping[str, DenseEntry]
    experts: Mapping[ExpertKey, ExpertEntry]

    def to_json(self) -> dict[str, Any]:
        """As in edgemoe.json."""
        return {
            "dense": {name: _fields(entry) for name, entry in self.dense.items()},
            "experts": {f"{layer}.{e}": _fields(entry) for (layer, e), entry in self.experts.items()},
        }


@dataclass(frozen=True)
class Manifest:
    """What a store holds and where. ``dense`` and ``experts`` are what every token runs through."""

    generator: str
    plan: Mapping[str, Any]
    files: Mapping[str, int]
    checksums: Mapping[str, str]
    dense: Mapping[str, DenseEntry]
    experts: Mapping[ExpertKey, ExpertEntry]
    mtp: MtpEntries | None = None

    def whole(self) -> Manifest:
        """The same with all of its entries among ``dense`` and ``experts``."""
        if self.mtp is None:
            return self
        dense, experts = {**self.dense, **self.mtp.dense}, {**self.experts, **self.mtp.experts}
        return replace(self, dense=dense, experts=experts, mtp=None)

    def mtp_alone(self) -> Manifest | None:
        """What there is of a layer for further tokens, by its own names, its experts as of layer 0."""
        if self.mtp is None:
            return None
        dense = {name.removeprefix(MTP_PREFIX): entry for name, entry in self.mtp.dense.items()}
        experts = {(0, expert): entry for (_, expert), entry in self.mtp.experts.items()}
        return replace(self, dense=dense, experts=experts, mtp=None)

    def to_json(self) -> str:
        """The text of edgemoe.json."""
        fields: dict[str, Any] = {
            "version": VERSION,
            "layout": LAYOUT_VERSION,
            "generator": self.generator,
            "plan": dict(self.plan),
            "files": dict(self.files),
            "checksums": dict(self.checksums),
            "dense": {name: _fields(entry) for name, entry in self.dense.items()},
            "experts": {f"{layer}.{e}": _fields(entry) for (layer, e), entry in self.experts.items()},
        }
        if self.mtp is not None:
            fields["mtp"] = self.mtp.to_json()
        return json.dumps({**fields, CHECKSUM: fields_checksum(fields)}, indent=1)


def fields_checksum(fields: Mapping[str, Any]) -> str:
    """Checksum of a manifest's fields but for its own."""
    others = {name: value for name, value in fields.items() if name != CHECKSUM}
    return checksum(json.dumps(others, sort_keys=True, separators=(",", ":")).encode())


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
    """Bytes of an expert's record with its padding; gate, if it has one, and up are (F, D), down (D, F)."""
    last = _parts(formats, width, expert_width)[-1]
    return aligned(last.offset + last.num_bytes, RECORD_ALIGNMENT)


def expert_matrices(
    record: ByteArray, formats: ExpertFormats, width: int, expert_width: int
) -> tuple[Matrix | None, Matrix, Matrix]:
    """gate, None where there is none, up and down as views into a record."""
    *gate, up, down = (
        Matrix(record[p.offset : p.offset + p.num_bytes], p.format, p.num_rows, p.num_cols)
        for p in _parts(formats, width, expert_width)
    )
    return gate[0] if gate else None, up, down


def expert_record(matrices: ExpertWeights) -> bytes:
    """The record of an expert with these matrices; :func:`expert_matrices` is the inverse."""
    gate, up, down = matrices
    parts = (m.packed.tobytes() for m in (gate, up, down) if m is not None)
    formats = ExpertFormats(None if gate is None else gate.format, up.format, down.format)
    return b"".join(parts).ljust(expert_num_bytes(formats, up.num_cols, up.num_rows), b"\0")


def _parts(formats: ExpertFormats, width: int, expert_width: int) -> list[RecordPart]:
    return record_parts(formats.gate, formats.up, formats.down, width, expert_width)


def _fields(entry: DenseEntry | ExpertEntry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in entry.__slots__}
    if isinstance(entry, ExpertEntry):
        fields["formats"] = entry.formats.to_json()
    return fields
