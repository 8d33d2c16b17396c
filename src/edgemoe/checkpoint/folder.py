"""Hugging Face folders: config.json and one or many files of weights, read one slice at a time.

Weights are safetensors, or where there are none pytorch_model.bin, of which only plain tensors are taken.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.source import SourceRef, TensorInfo
from edgemoe.checkpoint.torch_file import read_torch_file
from edgemoe.errors import CheckpointError, MissingTensorError
from edgemoe.safetensors_header import TensorRange, read_exactly, read_header
from edgemoe.source_ref import read_part

SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
# Index of the shards, files where there is none; safetensors first.
_KINDS = (
    ("model.safetensors.index.json", "*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
)


class FolderCheckpoint:
    """A folder as `save_pretrained` writes it, sharded or not; see CheckpointSource."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = _read_json(folder / "config.json")
        self._places: dict[str, tuple[Path, TensorRange]] = {}
        for path, wanted in _shards(folder).items():
            self._add_shard(path, wanted)
        self._descriptors: dict[Path, int] = {}

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        return dict(self._config)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their stored names."""
        return {
            name: TensorInfo(place.shape, place.dtype, place.num_bytes)
            for name, (_, place) in self._places.items()
        }

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32; see CheckpointSource."""
        if ref.name not in self._places:
            raise MissingTensorError(f"{self._folder}: there is no tensor {ref.name}")
        place = self._places[ref.name][1]
        shape = place.shape if ref.index is None else place.shape[1:]
        return read_part(ref, shape, partial(self._read_rows, ref.name, ref.index))

    def files(self) -> Mapping[str, bytes]:
        """Tokenizer, chat template and generation settings, those that exist."""
        paths = (self._folder / name for name in SIDE_FILES)
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def close(self) -> None:
        """Close the shards."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _read_rows(self, name: str, index: int | None, start: int, stop: int) -> NDArray[np.float32]:
        """Consecutive rows of a tensor, or of an entry of its first axis."""
        path, place = self._places[name]
        shape, offset, num_bytes = _locate(place, index, start, stop)
        try:
            raw = read_exactly(self._descriptor(path), num_bytes, offset)
        except (OSError, EOFError) as error:
            raise CheckpointError(f"{path}: tensor {name} cannot be read: {error}") from error
        return _as_float32(raw, place.dtype, name, path).reshape(shape)

    def _add_shard(self, path: Path, wanted: set[str] | None) -> None:
        try:
            tensors = read_torch_file(path) if path.suffix == ".bin" else read_header(path).tensors
        except (OSError, ValueError) as error:
            raise CheckpointError(_one_line(path, error)) from error
        for name in wanted or tensors:
            if name not in tensors:
                raise MissingTensorError(f"{path}: the index promises tensor {name}, which is not there")
            self._places[name] = (path, tensors[name])

    def _descriptor(self, path: Path) -> int:
        if path not in self._descriptors:
            self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[path]


def _shards(folder: Path) -> dict[Path, set[str] | None]:
    """Every weight file with the tensors expected of it; None: all it holds."""
    for index, pattern in _KINDS:
        if (folder / index).is_file():
            return _indexed(folder / index)
        files = sorted(folder.glob(pattern))
        if files:
            return dict.fromkeys(files)
    raise CheckpointError(
        f"{folder}: no *.safetensors files, no pytorch_model.bin; convert other weights to safetensors first"
    )


def _indexed(index: Path) -> dict[Path, set[str] | None]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map; fetch the file again")
    shards: dict[Path, set[str] | None] = {}
    for name, file in weight_map.items():
        names = shards.setdefault(index.parent / str(file), set())
        if names is not None:
            names.add(name)
    return shards


def _locate(place: TensorRange, index: int | None, start: int, stop: int) -> tuple[tuple[int, ...], int, int]:
    """Shape, file offset and number of bytes of consecutive rows."""
    shape, offset = place.shape, place.offset
    element = place.num_bytes // max(1, math.prod(shape))
    if index is not None:
        shape = shape[1:]
        offset += index * math.prod(shape) * element
    if not shape:
        return shape, offset, element
    offset += start * math.prod(shape[1:]) * element
    shape = (stop - start, *shape[1:])
    return shape, offset, math.prod(shape) * element


def _as_float32(raw: bytes, dtype: str, name: str, path: Path) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F16", "F32"):
        return np.frombuffer(raw, np.float16 if dtype == "F16" else np.float32).astype(np.float32)
    raise CheckpointError(
        f"{path}: tensor {name} has type {dtype}; only BF16, F16 and F32 checkpoints are read"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; a checkpoint folder needs it") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(_one_line(path, error)) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return value


def _one_line(path: Path, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"
