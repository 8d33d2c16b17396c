"""The seam to other people's files: a checkpoint is a configuration and named tensors, read in slices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe.source_ref import SourceRef

__all__ = ["CheckpointSource", "SourceRef", "TensorInfo"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and size of a tensor as it is stored."""

    shape: tuple[int, ...]
    dtype: str
    num_bytes: int

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
