"""Reads a manifest that may be damaged or malicious.

What passes names files inside the folder only, in ranges that lie inside these files, do not overlap and
have the sizes that follow from formats and shapes; so nobody further up has to check again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgemoe.errors import NotAStoreError, StoreError, StoreVersionError
from edgemoe.json_object import parse_json_object
from edgemoe.native import FORMATS, LAYOUT_VERSION
from edgemoe.quant import ExpertFormats
from edgemoe.store.format import (
    CHECKSUM,
    DENSE_ALIGNMENT,
    DENSE_FILE,
    MANIFEST_FILE,
    MTP_PREFIX,
    RECORD_ALIGNMENT,
    VECTOR_FORMAT,
    VERSION,
    DenseEntry,
    ExpertEntry,
    ExpertKey,
    Manifest,
    MtpEntries,
    dense_num_bytes,
    fields_checksum,
)

# Far beyond any model and any disk, far below where sums of sizes overflow in compiled code.
_MAX_NUMBER = 1 << 50
_FORMAT_NAME = re.compile(r"[a-z][a-z0-9_]{1,15}")
_CHECKSUM = re.compile("[0-9a-f]{16}")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?(:[\w.-]+)?")
_KEY = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})")


def read_manifest(folder: Path) -> Manifest:
    """Read and check a store's manifest; no other file is looked at.

    Raises:
        NotAStoreError: no manifest there.
        StoreVersionError: written for another version.
        StoreError: garbage.
    """
    path = folder / MANIFEST_FILE
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe would wait for ever
        raise StoreError(f"{path}: is no file; copy the store anew, or convert the checkpoint again")
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise NotAStoreError(
                f"{folder}: not a store, there is no such folder{_where_else(folder)}"
            ) from None
        if folder.is_file() and (folder.parent / MANIFEST_FILE).is_file():
            raise NotAStoreError(
                f"{folder}: is a file of a store; give its folder, {folder.parent}"
            ) from None
        raise NotAStoreError(
            f"{folder}: not a store, there is no {MANIFEST_FILE}{_what_instead(folder)}"
        ) from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        fields = parse_json_object(data, names_once=True)
        _check_version(folder, fields)
        _check_formats(folder, fields)
        manifest = _parse(fields)
        _check_places(manifest.whole())
        # Last, as what is wrong with a field says more than that something is.
        if CHECKSUM in fields and fields[CHECKSUM] != fields_checksum(fields):
            raise ValueError("changed since it was written")
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path}: damaged manifest ({error!r}); convert the checkpoint again") from error
    return manifest


def _where_else(path: Path) -> str:
    """How to get what a path may name, if it is none on this disk."""
    is_name = _HUB_NAME.fullmatch(str(path)) is not None
    return f"; if it is a model of the Hugging Face Hub, fetch it: edgemoe get {path}" if is_name else ""


def _what_instead(path: Path) -> str:
    """What to do with what is no store, if it can be told."""
    if path.is_file():
        return (
            "; run, chat, serve, bench, eval, inspect and doctor take a GGUF file as it is, for all else run"
            " `edgemoe convert`"
        )
    if (path / "config.json").is_file():
        return "; it is a checkpoint: run `edgemoe convert` first"
    inside = min(path.glob("*.gguf"), default=None)
    return "" if inside is None else f"; it holds GGUF files: name the one to run, for example {inside}"


def _check_version(folder: Path, fields: Mapping[str, Any]) -> None:
    version, layout = _number(fields["version"]), _number(fields["layout"])
    if (version, layout) != (VERSION, LAYOUT_VERSION):
        raise StoreVersionError(
            f"{folder}: store version {version}, layout {layout}; this program reads version {VERSION},"
            f" layout {LAYOUT_VERSION}; convert the checkpoint again"
        )


def _check_formats(folder: Path, fields: Mapping[str, Any]) -> None:
    """Formats are named one by one, so a newer program's store says itself what is missing here."""
    named: set[Any] = set()
    for part in (fields, fields.get("mtp", {"dense": {}, "experts": {}})):
        named.update(entry["format"] for entry in part["dense"].values())
        named.update(name for entry in part["experts"].values() for name in entry["formats"])
    unknown = sorted(name for name in named - set(FORMATS) if _FORMAT_NAME.fullmatch(_text(name)))
    if unknown:
        raise StoreVersionError(
            f"{folder}: has weights in format {unknown[0]}, which this program does not know; update edgemoe"
        )


def _parse(fields: Mapping[str, Any]) -> Manifest:
    return Manifest(
        generator=_text(fields["generator"]),
        plan=dict(fields["plan"]),
        files={_file(name): _number(size) for name, size in fields["files"].items()},
        checksums={_file(name): _checksum(value) for name, value in fields["checksums"].items()},
        dense={name: _dense_entry(e) for name, e in fields["dense"].items()},
        experts={_key(key): _expert_entry(e) for key, e in fields["experts"].items()},
        mtp=None if "mtp" not in fields else _mtp_entries(fields["mtp"], set(fields["experts"])),
    )


def _mtp_entries(fields: Mapping[str, Any], others: set[str]) -> MtpEntries:
    """Its experts are of one layer, which none of the ``others`` is of."""
    dense = {name: _dense_entry(e) for name, e in fields["dense"].items()}
    experts = {_key(key): _expert_entry(e) for key, e in fields["experts"].items()}
    if any(not name.startswith(MTP_PREFIX) for name in dense) or len({layer for layer, _ in experts}) != 1:
        raise ValueError("a layer for further tokens that is none")
    if {layer for layer, _ in experts} & {_key(key)[0] for key in others}:
        raise ValueError("a layer for further tokens that is one of the model's")
    return MtpEntries(dense, experts)


def _dense_entry(fields: Mapping[str, Any]) -> DenseEntry:
    shape = tuple(_number(size) for size in fields["shape"])
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f"shape {shape}")
    return DenseEntry(_format(fields["format"]), shape, *_place(fields))


def _expert_entry(fields: Mapping[str, Any]) -> ExpertEntry:
    formats = ExpertFormats.from_json([_format(name) for name in fields["formats"]])
    return ExpertEntry(formats, *_place(fields))


def _place(fields: Mapping[str, Any]) -> tuple[str, int, int, str]:
    return (
        _file(fields["file"]),
        _number(fields["offset"]),
        _number(fields["num_bytes"]),
        _checksum(fields["checksum"]),
    )


def _key(text: str) -> ExpertKey:
    if _KEY.fullmatch(text) is None:  # else two names could be of one expert
        raise ValueError(f"{text!r} names no expert")
    layer, expert = (_number(int(part)) for part in text.split("."))
    return layer, expert


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_NUMBER:
        raise ValueError(f"{value!r} is not a number that can be")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _checksum(value: object) -> str:
    text = _text(value)
    if _CHECKSUM.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no checksum")
    return text


def _file(value: object) -> str:
    """A plain name: nothing that leads out of the folder."""
    name = _text(value)
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in the store")
    return name


def _format(value: object) -> str:
    if value not in FORMATS:
        raise ValueError(f"unknown format {value!r}")
    return str(value)


def _check_places(manifest: Manifest) -> None:
    """Records have their formats' sizes and lie aligned inside their files without overlapping."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for name, entry in manifest.dense.items():
        format = VECTOR_FORMAT if len(entry.shape) == 1 else entry.format
        if entry.format != format or entry.num_bytes != dense_num_bytes(format, entry.shape):
            raise ValueError(f"{name}: {entry.num_bytes} bytes are not {entry.shape} of {entry.format}")
        if entry.file != DENSE_FILE:
            raise ValueError(f"{name}: lies in {entry.file}")
        _add_range(ranges, manifest, entry, DENSE_ALIGNMENT)
    for expert in manifest.experts.values():
        _add_range(ranges, manifest, expert, RECORD_ALIGNMENT)
    if DENSE_FILE not in manifest.files or not manifest.experts:
        raise ValueError("no dense weights or no experts")
    for file, spans in ranges.items():
        spans.sort()
        if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
            raise ValueError(f"overlapping ranges in {file}")


def _add_range(
    ranges: dict[str, list[tuple[int, int]]],
    manifest: Manifest,
    entry: DenseEntry | ExpertEntry,
    alignment: int,
) -> None:
    end = entry.offset + entry.num_bytes
    is_aligned = entry.offset % alignment == 0 and entry.num_bytes % alignment == 0
    if entry.num_bytes == 0 or not is_aligned or end > manifest.files.get(entry.file, -1):
        raise ValueError(f"impossible range in {entry.file}")
    ranges.setdefault(entry.file, []).append((entry.offset, end))
