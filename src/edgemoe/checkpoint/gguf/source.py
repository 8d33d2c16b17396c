"""GGUF files, single or split, read one slice at a time.

The container and its block types are read by the ``gguf`` library; what tensors are called is said by the
families of models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.checkpoint.gguf.config import read_config
from edgemoe.checkpoint.gguf.tokenizer import tokenizer_files
from edgemoe.checkpoint.source import SourceRef, TensorInfo
from edgemoe.errors import CheckpointError, MissingTensorError
from edgemoe.quant import exact_format
from edgemoe.source_ref import read_part

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


class GgufCheckpoint:
    """One GGUF file, or all files of a split one when any of them is named; see CheckpointSource."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata: dict[str, Any] = {}
        tensors: dict[str, ReaderTensor] = {}
        for file in _all_files(path):
            reader = _open(file)
            # The first file of a split one has the metadata, the others only their number.
            for key, field in reader.fields.items():
                if key not in self._metadata:
                    self._metadata[key] = field.contents()
            tensors.update({tensor.name: tensor for tensor in reader.tensors})
        expected = self._metadata.get("split.tensors.count", len(tensors))
        if len(tensors) != expected:
            raise CheckpointError(f"{path}: its files hold {len(tensors)} tensors of {expected}; is one cut?")
        if "token_embd.weight" not in tensors:
            raise MissingTensorError(f"{path}: has no tensor token_embd.weight; not a language model")
        self._config = read_config(
            self._metadata,
            vocab_size=int(tensors["token_embd.weight"].shape[1]),
            has_head="output.weight" in tensors,
            has_bias="blk.0.attn_q.bias" in tensors,
            names=tensors.keys(),
        )
        self._tensors = tensors

    def config(self) -> dict[str, Any]:
        """The configuration, in Hugging Face's keys."""
        return dict(self._config)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their names in the file, with the block type as type."""
        return {
            name: TensorInfo(
                _shape(tensor),
                tensor.tensor_type.name,
                int(tensor.n_bytes),
                _exact_format(tensor.tensor_type.name),
            )
            for name, tensor in self._tensors.items()
        }

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32; see CheckpointSource."""
        tensor, stored, shape = self._part(ref)
        return read_part(ref, shape, lambda start, stop: self._decoded(tensor, stored[start:stop]))

    def read_packed(self, ref: SourceRef) -> NDArray[np.uint8]:
        """One part of a tensor with an exact format, packed in it; see ExactSource."""
        tensor, stored, shape = self._part(ref)
        format, rows = _exact_format(tensor.tensor_type.name), ref.stored_rows(shape)
        assert format is not None, f"{ref.name} has no exact format"
        assert rows is not None, f"{ref} does more than choose rows"
        is_run = bool(np.all(np.diff(rows) == 1))
        blocks = np.ascontiguousarray(stored[rows[0] : rows[-1] + 1] if is_run else stored[rows])
        try:
            return native.pack_blocks(blocks, format, shape[-1])
        except ValueError as error:
            raise CheckpointError(f"{self._path}: tensor {ref.name}: {error}; fetch it again") from error

    def _part(self, ref: SourceRef) -> tuple[ReaderTensor, NDArray[Any], tuple[int, ...]]:
        """The tensor, the data and the shape of it or of its entry."""
        if ref.name not in self._tensors:
            raise MissingTensorError(f"{self._path}: there is no tensor {ref.name}")
        tensor = self._tensors[ref.name]
        stored, shape = tensor.data, _shape(tensor)
        return (tensor, stored, shape) if ref.index is None else (tensor, stored[ref.index], shape[1:])

    def _decoded(self, tensor: ReaderTensor, stored: NDArray[Any]) -> NDArray[np.float32]:
        from gguf.quants import dequantize

        try:
            values = dequantize(np.ascontiguousarray(stored), tensor.tensor_type)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{self._path}: tensor {tensor.name} has type {tensor.tensor_type.name},"
                " which the gguf library cannot read"
            ) from error
        return np.ascontiguousarray(values, np.float32)

    def files(self) -> Mapping[str, bytes]:
        """Tokenizer, chat template and generation settings, rebuilt from the metadata."""
        return tokenizer_files(self._metadata, self._path)

    def close(self) -> None:
        """Let the mapped files go."""
        self._tensors = {}


def _all_files(path: Path) -> list[Path]:
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match[3])
    files = [path.with_name(f"{match[1]}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: not found; the model is split into {count} files")
    return files


def _open(path: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise CheckpointError(
            f"{path}: reading GGUF needs the gguf library; install it with: pip install 'edgemoe[gguf]'"
        ) from None
    try:
        if path.stat().st_size < 32:
            raise ValueError("too short")
        return GGUFReader(path)
    # The library lets errors of any kind through where a file is cut or not GGUF at all.
    except Exception as error:
        raise CheckpointError(f"{path}: not a GGUF file, or cut short; fetch it again") from error


def _exact_format(block_type: str) -> str | None:
    """The format that holds blocks of this type value for value, if there is one."""
    format = exact_format(block_type)
    return format if format is not None and native.FORMAT_TRAITS[format].packs_blocks else None


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    return tuple(int(n) for n in reversed(tensor.shape))
