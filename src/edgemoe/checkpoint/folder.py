"""Hugging Face folders: config.json and one or many files of weights, read one slice at a time.

Weights are safetensors, or where there are none pytorch_model.bin, of which only plain tensors are taken;
weight_files.py has which files count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.coded import CodedTensor, ExactTensor, merge_coded
from edgemoe.checkpoint.open_files import OpenFiles
from edgemoe.checkpoint.quantisation import (
    empty_biases,
    find_coded,
    idle_quantisation,
    modelopt_settings,
    without_quantisation,
)
from edgemoe.checkpoint.source import SourceRef, TensorInfo
from edgemoe.checkpoint.stand_ins import read_json, refuse_stand_in
from edgemoe.checkpoint.tokenizer_model import build_tokenizer
from edgemoe.checkpoint.torch_file import read_torch_file
from edgemoe.checkpoint.weight_files import find_weight_files, refuse_others
from edgemoe.errors import CheckpointError, MissingTensorError
from edgemoe.safetensors_header import TensorRange, read_header
from edgemoe.source_ref import read_part

# What codes are stored as; FP8 as the bytes that it is.
_FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_INTEGERS = {"I8": np.int8, "I32": np.int32, "U8": np.uint8, "I64": np.int64, "F8_E4M3": np.uint8}
SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
# Tokenizers of today take up to 40 MB; a file far above that is something else.
_MAX_SIDE_BYTES = 512 << 20
_MORE_TEMPLATES = "additional_chat_templates"
_MODELOPT_FILE = "hf_quant_config.json"
# What compressed-tensors called its settings at first.
_OLDER_KEY = "compression_config"


class FolderCheckpoint:
    """A folder as `save_pretrained` writes it, sharded or not; see CheckpointSource."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / "config.json").is_file():
            refuse_others(folder, "config.json")
        self._config = _read_config(folder)
        self._places: dict[str, tuple[Path, TensorRange]] = {}
        self._open_files = OpenFiles()
        files = find_weight_files(folder, self._config)
        owners = {name: path for path, names in files.items() for name in names or ()}
        for path in files:
            self._add_file(path, owners)

    def config(self) -> dict[str, Any]:
        """The contents of config.json, but for a quantisation that read() undoes, or that was not done."""
        return without_quantisation(self._config, self._stored)

    def notes(self) -> Sequence[str]:
        """What to tell people of the folder: what lies there and is not used."""
        found = [idle_quantisation(self._config, self._stored)]
        if (self._folder / "adapter_config.json").is_file():
            found.append("an adapter lies beside the weights and is not used; merge it into them to have it")
        return tuple(note for note in found if note is not None)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their stored names; codes and what belongs to them are one tensor of numbers."""
        stored = {name: info for name, info in self._stored.items() if name not in self._empty_biases}
        return merge_coded(stored, self._coded)

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32; see CheckpointSource."""
        if ref.name in self._coded:
            coded = self._coded[ref.name]
            shape = coded.info.shape if ref.index is None else coded.info.shape[1:]
            return read_part(ref, shape, partial(coded.rows, self._read_stored, ref.index))
        if ref.name not in self._places:
            raise MissingTensorError(f"{self._folder}: there is no tensor {ref.name}")
        shape = self._places[ref.name][1].shape
        shape = shape if ref.index is None else shape[1:]
        return read_part(ref, shape, partial(self._read_rows, ref.name, ref.index))

    def read_packed(self, ref: SourceRef) -> NDArray[np.uint8]:
        """One part of a tensor in MXFP4 or NVFP4 as a store holds it; see ExactSource."""
        coded = self._coded[ref.name]
        assert isinstance(coded, ExactTensor), f"{ref.name} has no exact format"
        rows = ref.stored_rows(coded.info.shape if ref.index is None else coded.info.shape[1:])
        assert rows is not None, f"{ref} does more than choose rows"
        return coded.packed(self._read_stored, ref.index, rows)

    def files(self) -> Mapping[str, bytes]:
        """Tokenizer, chat templates and generation settings, those that exist.

        Where there is no tokenizer.json, it is built of the files that training left, if these are known.
        """
        paths = (self._folder / name for name in SIDE_FILES)
        found = {path.name: _read_side_file(path) for path in paths if path.is_file()}
        built = None if "tokenizer.json" in found else build_tokenizer(self._folder, self._config)
        if built is not None:
            found["tokenizer.json"] = built
        return _with_more_templates(self._folder, found)

    def close(self) -> None:
        """Close the shards."""
        self._open_files.close()

    @cached_property
    def _stored(self) -> Mapping[str, TensorInfo]:
        return {
            name: TensorInfo(place.shape, place.dtype, place.num_bytes)
            for name, (_, place) in self._places.items()
        }

    @cached_property
    def _coded(self) -> Mapping[str, CodedTensor]:
        return find_coded(self._config, self._stored)

    @cached_property
    def _empty_biases(self) -> set[str]:
        return empty_biases(self._coded, self._stored, self._read_stored)

    def _read_rows(self, name: str, index: int | None, start: int, stop: int) -> NDArray[np.float32]:
        """Consecutive rows of a tensor, or of an entry of its first axis."""
        shape, raw = self._read_bytes(name, index, start, stop)
        path, place = self._places[name]
        return _as_float32(raw, place.dtype, name, path).reshape(shape)

    def _read_stored(self, name: str, index: int | None, start: int, stop: int) -> NDArray[Any]:
        """As coded.ReadStored."""
        shape, raw = self._read_bytes(name, index, start, stop)
        path, place = self._places[name]
        if place.dtype in _INTEGERS:
            return np.frombuffer(raw, _INTEGERS[place.dtype]).reshape(shape)
        return _as_float32(raw, place.dtype, name, path).reshape(shape)

    def _read_bytes(
        self, name: str, index: int | None, start: int, stop: int
    ) -> tuple[tuple[int, ...], bytes]:
        path, place = self._places[name]
        shape, offset, num_bytes = _locate(place, index, start, stop)
        try:
            return shape, self._read_raw(path, num_bytes, offset)
        except (OSError, EOFError) as error:
            raise CheckpointError(f"{path}: tensor {name} cannot be read: {error}") from error

    def _read_raw(self, path: Path, num_bytes: int, offset: int) -> bytes:
        """Bytes of a weight file."""
        return self._open_files.read(path, num_bytes, offset)

    def _add_file(self, path: Path, owners: Mapping[str, Path]) -> None:
        """Take the tensors of a file; of one that is in two files the index says whose it is (``owners``).

        Programs that change some tensors of a model leave the old ones in files that they share with it.
        """
        refuse_stand_in(path)
        try:
            self._open_files.note(path)
            tensors = read_torch_file(path) if path.suffix == ".bin" else read_header(path).tensors
        except (OSError, ValueError) as error:
            raise CheckpointError(_one_line(path, error)) from error
        for name, place in tensors.items():
            other = self._places[name][0] if name in self._places else None
            if other is not None and owners.get(name) not in (path, other):
                raise CheckpointError(f"{path}: tensor {name} is also in {other.name}; fetch the model again")
            if other is None or owners[name] == path:
                self._places[name] = path, place


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json, with what modelopt says of its quantisation in a file of its own."""
    config, apart = read_json(folder / "config.json"), folder / _MODELOPT_FILE
    if "quantization_config" not in config and apart.is_file():
        config["quantization_config"] = modelopt_settings(read_json(apart))
    if "quantization_config" not in config and isinstance(config.get(_OLDER_KEY), dict):
        config["quantization_config"] = {"quant_method": "compressed-tensors", **config.pop(_OLDER_KEY)}
    return config


def _with_more_templates(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Templates of a folder of their own become named ones of tokenizer_config.json: stores are flat."""
    more = sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))
    if not more:
        return files
    sources = {path.stem: _text(path, _read_side_file(path)) for path in more}
    default = files.pop("chat_template.jinja", None)
    if default is not None:
        sources = {"default": _text(folder / "chat_template.jinja", default), **sources}
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    settings["chat_template"] = [{"name": name, "template": text} for name, text in sources.items()]
    return {**files, path.name: json.dumps(settings, ensure_ascii=False).encode()}


def _read_side_file(path: Path) -> bytes:
    num_bytes = path.stat().st_size
    if num_bytes > _MAX_SIDE_BYTES:
        raise CheckpointError(f"{path}: has {num_bytes} bytes, too many for such a file; fetch it again")
    return path.read_bytes()


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is not UTF-8 (byte {error.start}); fetch it again") from None


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
    if dtype in _FLOATS:
        return np.frombuffer(raw, _FLOATS[dtype]).astype(np.float32)
    if dtype == "F8_E8M0":  # scales that are powers of two
        return np.exp2(np.frombuffer(raw, np.uint8).astype(np.float32) - 127)
    raise CheckpointError(
        f"{path}: tensor {name} has type {dtype}; only BF16, F16, F32 and F64 are read, and FP8, MXFP4,"
        " NVFP4 and packed integers with their scales"
    )


def _one_line(path: Path, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"
