"""Quantised checkpoints: several stored tensors that are one matrix of numbers, decoded some rows at a time.

What a checkpoint has is found by its ``quantization_config`` and its tensors' names: not every matrix is
coded, so each is looked at. float8.py and packed_int.py have the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.source import TensorInfo
from edgemoe.native import FloatArray

# Consecutive rows [start, stop) of a stored tensor, or of an entry of its first axis: floats as float32, FP8
# as the bytes that it is, integers as they are.
ReadStored = Callable[[str, "int | None", int, int], NDArray[Any]]
# Scales of activations and of cached keys and values: nothing is computed in their formats here.
_OF_ACTIVATIONS = (
    *("input_scale", "input_scale_inv", "input_zero_point", "activation_scale"),
    *("k_scale", "v_scale", "q_scale", "output_scale"),
)


class CodedTensor(Protocol):
    """One matrix of numbers, or a stack of them."""

    @property
    def info(self) -> TensorInfo:
        """Shape of the numbers; type and bytes of what is stored, scales included."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The stored tensors that it is made of."""
        ...

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """Rows [start, stop) of the matrix, or of the entry ``index`` of a stack."""
        ...


def merge_coded(tensors: Mapping[str, TensorInfo], coded: Mapping[str, CodedTensor]) -> dict[str, TensorInfo]:
    """The tensors with coded ones in place of their parts, and without scales of activations."""
    if not coded:
        return dict(tensors)
    parts = {part for tensor in coded.values() for part in tensor.parts}
    left = {
        name: info
        for name, info in tensors.items()
        if name not in parts and name.rpartition(".")[2] not in _OF_ACTIVATIONS
    }
    return {**left, **{name: tensor.info for name, tensor in coded.items()}}


def repeated(values: FloatArray, block: int, first: int, count: int, axis: int) -> FloatArray:
    """For places [first, first + count) of an axis, the value of the block of ``block`` that each is in."""
    places = (np.arange(first, first + count) // block) - first // block
    return np.take(values, places, axis=axis)
