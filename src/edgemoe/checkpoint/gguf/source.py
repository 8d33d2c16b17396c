"""GGUF files, single or split, read one slice at a time.

Block types are decoded by the ``gguf`` library; what tensors are called is said by the families of models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.checkpoint.gguf.config import read_config
from edgemoe.checkpoint.gguf.container import GgufTensor, read_container
from edgemoe.checkpoint.gguf.defaults import ROTATION_TENSORS
from edgemoe.checkpoint.gguf.names import names_of_parts
from edgemoe.checkpoint.gguf.tokenizer import GgufText
from edgemoe.checkpoint.open_files import OpenFiles
from edgemoe.checkpoint.source import SourceRef, TensorInfo
from edgemoe.errors import CheckpointError, MissingTensorError
from edgemoe.quant import exact_format
from edgemoe.source_ref import read_part

# What a file holds by its key general.type, where it is no model of language, and what to do.
_OTHERS = {
    "adapter": "an adapter, not a model: merge it into its base model and take that",
    "mmproj": "the tower for images that belongs to a model: give the file of the model itself",
    "imatrix": "measurements that quantisers use, not a model: give the file of the model itself",
    "vocab": "a vocabulary without a model: give the file of the model itself",
}
_FLOATS = {"F32": "f4", "F16": "f2"}


class GgufCheckpoint:
    """One GGUF file, or all files of a split one when any of them is named; see CheckpointSource."""

    def __init__(self, path: Path) -> None:
        _require_library(path)
        self._path = path
        self._open_files = OpenFiles()
        self._metadata, tensors = _read_all(path, self._open_files)
        self._tensors, self._factors = _parted(self._metadata, tensors)
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self._config = read_config(self._metadata, shapes, self._divisors())
        self._text = GgufText(self._metadata, path)

    def config(self) -> dict[str, Any]:
        """The configuration, in Hugging Face's keys."""
        return dict(self._config)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their names in the file, with the block type as type."""
        return {
            name: TensorInfo(tensor.shape, tensor.type.name, tensor.num_bytes, _exact_format(tensor))
            for name, tensor in self._tensors.items()
        }

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32; see CheckpointSource."""
        tensor, shape, offset = self._part(ref)
        factor = self._factor(ref)
        return read_part(
            ref, shape, lambda start, stop: self._rows(tensor, shape, offset, start, stop) * factor
        )

    def read_packed(self, ref: SourceRef) -> NDArray[np.uint8]:
        """One part of a tensor with an exact format, packed in it; see ExactSource."""
        tensor, shape, offset = self._part(ref)
        format, rows = _exact_format(tensor), ref.stored_rows(shape)
        assert format is not None, f"{ref.name} has no exact format"
        assert rows is not None, f"{ref} does more than choose rows"
        first, row_num_bytes = int(rows.min()), tensor.row_num_bytes
        data = self._bytes(
            tensor, offset + first * row_num_bytes, (int(rows.max()) + 1 - first) * row_num_bytes
        )
        stored = data.reshape(-1, row_num_bytes)
        is_run = bool(np.all(np.diff(rows) == 1))
        blocks = np.ascontiguousarray(stored if is_run else stored[rows - first])
        try:
            packed = native.pack_blocks(blocks, format, shape[-1])
        except ValueError as error:
            raise CheckpointError(f"{self._path}: tensor {ref.name}: {error}; fetch it again") from error
        if ref.name in self._factors:
            native.set_row_factors(packed, len(rows), self._factor(ref))
        return packed

    def paths(self) -> list[Path]:
        """The files that hold the tensors, absolute, in their order."""
        return sorted({tensor.path.resolve() for tensor in self._tensors.values()})

    def place(self, ref: SourceRef) -> tuple[Path, int, int] | None:
        """File, offset and number of the rows of a part, where they are all of it, one behind the other and
        have the order of bytes that formats have.
        """
        tensor, shape, offset = self._part(ref)
        rows = ref.stored_rows(shape)
        if (
            ref.name in self._factors
            or tensor.is_big_endian
            or rows is None
            or len(shape) != 2
            or not bool(np.all(np.diff(rows) == 1))
        ):
            return None
        return tensor.path.resolve(), offset + int(rows[0]) * tensor.row_num_bytes, len(rows)

    def files(self) -> Mapping[str, bytes]:
        """Tokenizer, chat template and generation settings, rebuilt from the metadata."""
        return self._text.files()

    def notes(self) -> Sequence[str]:
        """What to tell people about how the file was read."""
        return self._text.notes()

    def close(self) -> None:
        """Close the files."""
        self._open_files.close()
        self._tensors = {}

    def _divisors(self) -> dict[str, list[float]]:
        """The values of tensors that belong to the configuration."""
        names = [name for name in ROTATION_TENSORS if name in self._tensors]
        return {name: self.read(SourceRef(name)).reshape(-1).tolist() for name in names}

    def _part(self, ref: SourceRef) -> tuple[GgufTensor, tuple[int, ...], int]:
        """The tensor, and shape and place of it or of its entry."""
        if ref.name not in self._tensors:
            raise MissingTensorError(f"{self._path}: there is no tensor {ref.name}")
        tensor = self._tensors[ref.name]
        if ref.index is None:
            return tensor, tensor.shape, tensor.offset
        entry_num_bytes = tensor.num_bytes // tensor.shape[0]
        return tensor, tensor.shape[1:], tensor.offset + ref.index * entry_num_bytes

    def _factor(self, ref: SourceRef) -> float:
        """What the numbers of a tensor, or of its entry, are multiplied with."""
        scale = self._factors.get(ref.name)
        if scale is None:
            return 1.0
        values = _decoded(self._bytes(scale, scale.offset, scale.num_bytes), scale, scale.shape).reshape(-1)
        factor = float(values[(ref.index or 0) if len(values) > 1 else 0])
        if not np.isfinite(factor):
            raise CheckpointError(f"{self._path}: tensor {scale.name} holds {factor}; fetch it again")
        return factor

    def _rows(
        self, tensor: GgufTensor, shape: tuple[int, ...], offset: int, start: int, stop: int
    ) -> NDArray[np.float32]:
        """Rows [start, stop) of a tensor, or of its entry at ``offset``, whose shape is given."""
        if len(shape) == 1:  # a vector has one row; what is wanted of it are values
            data = self._bytes(tensor, offset, tensor.row_num_bytes)
            return _decoded(data, tensor, shape)[start:stop]
        row_num_bytes = tensor.row_num_bytes * int(np.prod(shape[1:-1], dtype=np.int64))
        data = self._bytes(tensor, offset + start * row_num_bytes, (stop - start) * row_num_bytes)
        return _decoded(data, tensor, (stop - start, *shape[1:]))

    def _bytes(self, tensor: GgufTensor, offset: int, num_bytes: int) -> NDArray[np.uint8]:
        path = tensor.path
        try:
            return np.frombuffer(self._read_raw(tensor, num_bytes, offset), np.uint8)
        except (OSError, EOFError) as error:
            raise CheckpointError(f"{path}: tensor {tensor.name} cannot be read: {error}") from error

    def _read_raw(self, tensor: GgufTensor, num_bytes: int, offset: int) -> bytes:
        """A part of a tensor; ``offset`` is that in its file."""
        return self._open_files.read(tensor.path, num_bytes, offset)


def _parted(
    metadata: Mapping[str, Any], tensors: dict[str, GgufTensor]
) -> tuple[dict[str, GgufTensor], dict[str, GgufTensor]]:
    """The tensors without what goes with those in NVFP4, and the factors of these by their names.

    ``X.scale`` has one number, or one for each entry of a stack, beside ``X.weight``; ``X.input_scale`` is
    for activations of 4 bits, which nothing here is computed in.
    """
    left, factors = dict(tensors), {}
    for name, tensor in tensors.items():
        if tensor.type.name != "NVFP4" or not name.endswith(".weight"):
            continue
        stem = name.removesuffix(".weight")
        left.pop(f"{stem}.input_scale", None)
        # A router's scale of its experts has that name in Gemma 4.
        scale = None if metadata.get("general.architecture") == "gemma4" else left.pop(f"{stem}.scale", None)
        if scale is None:
            continue
        if scale.type.name not in _FLOATS or scale.shape not in ((1,), tensor.shape[:1]):
            raise CheckpointError(
                f"{scale.path}: tensor {scale.name} has shape {scale.shape} and type {scale.type.name}, which"
                f" does not fit {name}; fetch the file again"
            )
        factors[name] = scale
    return left, factors


def _exact_format(tensor: GgufTensor) -> str | None:
    """The format that holds the blocks of a tensor value for value, if there is one."""
    format = None if tensor.is_big_endian else exact_format(tensor.type.name)
    return format if format is not None and native.FORMAT_TRAITS[format].packs_blocks else None


def _decoded(data: NDArray[np.uint8], tensor: GgufTensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if tensor.type.name in _FLOATS:
        dtype = np.dtype((">" if tensor.is_big_endian else "<") + _FLOATS[tensor.type.name])
        return np.asarray(data.view(dtype), np.float32).reshape(shape)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    rows = data.reshape(-1, tensor.row_num_bytes)
    values = dequantize(rows, GGMLQuantizationType(tensor.type.number))
    return np.asarray(values, np.float32).reshape(shape)


def _read_all(path: Path, open_files: OpenFiles) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    """Metadata and tensors of a file, or of all files of a split one, which are noted in ``open_files``."""
    metadata: dict[str, Any] = {}
    tensors: dict[str, GgufTensor] = {}
    files = _all_files(path)
    for number, file in enumerate(files):
        with contextlib.suppress(OSError):  # said where it is read
            open_files.note(file)
        read = read_container(file)
        if len(files) > 1:
            _check_part(file, number, len(files), read.metadata)
        # The first file of a split one has the metadata, the others only their number.
        metadata = {**read.metadata, **metadata}
        twice = sorted(tensors.keys() & read.tensors.keys())
        if twice:
            raise CheckpointError(f"{file}: has tensor {twice[0]}, which another file of the model has too")
        tensors |= read.tensors
    _check_whole(path, len(files), metadata, tensors)
    return metadata, tensors


def _check_part(file: Path, number: int, count: int, metadata: Mapping[str, Any]) -> None:
    """A part that was renamed, or is of another model, says so itself."""
    said = metadata.get("split.no", number), metadata.get("split.count", count)
    if said != (number, count):
        raise CheckpointError(
            f"{file}: says that it is part {said[0]} of {said[1]}, counted from 0, and its name says part"
            f" {number} of {count}; give the files their names back, or fetch them again"
        )


def _check_whole(
    path: Path, num_files: int, metadata: Mapping[str, Any], tensors: Mapping[str, GgufTensor]
) -> None:
    num_parts = metadata.get("split.count", 1)
    if isinstance(num_parts, int) and num_parts > max(1, num_files):
        raise CheckpointError(
            f"{path}: is one of {num_parts} files of a split model, and its name does not say where the"
            f" others are; give all their names back, such as model-00001-of-{num_parts:05d}.gguf"
        )
    expected = metadata.get("split.tensors.count", len(tensors))
    if len(tensors) != expected:
        raise CheckpointError(f"{path}: its files hold {len(tensors)} tensors of {expected}; is one cut?")
    kind = metadata.get("general.type", "model")
    if "token_embd.weight" not in tensors and kind in _OTHERS:
        raise CheckpointError(f"{path}: is {_OTHERS[kind]}")
    if "token_embd.weight" not in tensors:
        raise MissingTensorError(f"{path}: has no tensor token_embd.weight; not a language model")
    for tensor in tensors.values():
        if tensor.is_big_endian and tensor.type.name not in _FLOATS:
            raise CheckpointError(
                f"{path}: is big-endian, and tensor {tensor.name} has blocks of {tensor.type.name}, of which"
                " writers swap different bytes; make a little-endian file of it with gguf_convert_endian"
            )


def _all_files(path: Path) -> list[Path]:
    files = [path.with_name(name) for name in names_of_parts(path.name)]
    for file in files:
        if len(files) > 1 and not file.is_file():
            raise CheckpointError(f"{file}: not found; the model is split into {len(files)} files")
    return files


def _require_library(path: Path) -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f"{path}: reading GGUF needs the gguf library; install it with: pip install 'edgemoe[gguf]'"
        ) from None
