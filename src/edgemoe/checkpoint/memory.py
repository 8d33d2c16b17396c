"""A checkpoint held in memory: for tests and for programs that make weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.source import SourceRef, TensorInfo
from edgemoe.errors import MissingTensorError
from edgemoe.source_ref import read_part


class MemoryCheckpoint:
    """A configuration and float arrays by stored name; see CheckpointSource."""

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, NDArray[np.floating[Any]]],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._config = dict(config)
        self._tensors = dict(tensors)
        self._files = dict(files or {})

    def config(self) -> dict[str, Any]:
        """The configuration given."""
        return dict(self._config)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return {
            name: TensorInfo(array.shape, f"F{8 * array.itemsize}", array.nbytes)
            for name, array in self._tensors.items()
        }

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32."""
        if ref.name not in self._tensors:
            raise MissingTensorError(f"in-memory checkpoint: there is no tensor {ref.name}")
        array = self._tensors[ref.name]
        if ref.index is not None:
            array = array[ref.index]
        if not array.shape:
            return np.ascontiguousarray(array, np.float32)
        return read_part(ref, array.shape, lambda start, stop: array[start:stop].astype(np.float32))

    def files(self) -> Mapping[str, bytes]:
        """The side files given."""
        return dict(self._files)

    def close(self) -> None:
        """Nothing to release."""
