"""The seam to other people's files: a checkpoint is a configuration and named tensors, read in slices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgemoe.source_ref import SourceRef

__all__ = ["CheckpointSource", "ExactSource", "SourceRef", "TensorInfo"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and size of a tensor as it is stored.

    ``exact_format``: a storage format that holds its blocks value for value; its source is an ExactSource.
    """

    shape: tuple[int, ...]
    dtype: str
    num_bytes: int
    exact_format: str | None = None

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per value, scales included."""
        return 8 * self.num_bytes / math.prod(self.shape)


class CheckpointSource(Protocol):
    """A checkpoint. Not thread-safe."""

    def config(self) -> dict[str, Any]:
        """The model configuration, in Hugging Face's keys."""
        ...

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their stored names."""
        ...

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32; costs memory for that part alone.

        Raises:
            CheckpointError: the tensor is not there, damaged, or of a type that is no float.
        """
        ...

    def files(self) -> Mapping[str, bytes]:
        """Files to keep beside the weights, by name: tokenizer, chat template, generation settings."""
        ...

    def close(self) -> None:
        """Release files. Later calls do nothing."""
        ...


@runtime_checkable
class ExactSource(CheckpointSource, Protocol):
    """A checkpoint with tensors whose blocks a store can hold value for value."""

    def read_packed(self, ref: SourceRef) -> NDArray[np.uint8]:
        """One part of a tensor with an exact format, packed in it; no weight changes its value.

        The steps of the part only choose rows (``SourceRef.stored_rows``).

        Raises:
            CheckpointError: the tensor is not there, damaged, or has weights that are not finite.
        """
        ...
