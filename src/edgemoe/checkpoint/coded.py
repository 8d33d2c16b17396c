"""Quantised checkpoints: several stored tensors that are one matrix of numbers, decoded some rows at a time.

What a checkpoint has is found by its ``quantization_config`` and its tensors' names: not every matrix is
coded, so each is looked at. byte_codes.py, by_input.py, packed_int.py, mxfp4.py and nvfp4.py have the
methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.source import TensorInfo
from edgemoe.native import ByteArray, FloatArray

# Consecutive rows [start, stop) of a stored tensor, or of an entry of its first axis: floats as float32, FP8
# as the bytes that it is, integers as they are.
ReadStored = Callable[[str, "int | None", int, int], NDArray[Any]]
# Scales of activations and of cached keys and values: nothing is computed in their formats here.
_OF_ACTIVATIONS = (
    *("input_scale", "input_scale_inv", "input_zero_point", "input_global_scale", "activation_scale"),
    *("k_scale", "v_scale", "q_scale", "output_scale"),
)
_OF_STACKED_ACTIVATIONS = ("_input_scale", "_input_global_scale")


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


@runtime_checkable
class ExactTensor(CodedTensor, Protocol):
    """One whose blocks a storage format may hold value for value: ``info.exact_format``, if it has one."""

    def packed(self, read: ReadStored, index: int | None, rows: NDArray[np.int64]) -> ByteArray:
        """Those rows of the matrix, or of the entry ``index`` of a stack, packed in that format.

        Raises:
            CheckpointError: a weight is not finite.
        """
        ...


def merge_coded(tensors: Mapping[str, TensorInfo], coded: Mapping[str, CodedTensor]) -> dict[str, TensorInfo]:
    """The tensors with coded ones in place of their parts, and without scales of activations."""
    if not coded:
        return dict(tensors)
    parts = {part for tensor in coded.values() for part in tensor.parts}
    left = {
        name: info
        for name, info in tensors.items()
        if name not in parts
        and name.rpartition(".")[2] not in _OF_ACTIVATIONS
        and not name.endswith(_OF_STACKED_ACTIVATIONS)
    }
    return {**left, **{name: tensor.info for name, tensor in coded.items()}}


def repeated(values: FloatArray, block: int, first: int, count: int, axis: int) -> FloatArray:
    """For places [first, first + count) of an axis, the value of the block of ``block`` that each is in."""
    places = (np.arange(first, first + count) // block) - first // block
    return np.take(values, places, axis=axis)


def read_picked(read: ReadStored, name: str, index: int | None, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of a stored tensor in any order, by one read of the span that they lie in."""
    first, last = int(rows.min()), int(rows.max())
    return np.ascontiguousarray(read(name, index, first, last + 1)[rows - first])
