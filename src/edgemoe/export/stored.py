"""The values of a checkpoint's tensor, put together from the model's own tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgemoe import native
from edgemoe.export.outline import Part, Target
from edgemoe.export.undo import undo
from edgemoe.export.weights import row_chunks
from edgemoe.native import FloatArray, Matrix

Parts = list[tuple[Part, "Matrix | FloatArray"]]


def stored_values(target: Target, tensors: Parts) -> FloatArray:
    """All values of a tensor, or of an entry of it, in the shape of the entry."""
    values = sum(undo(part.ref, _values(part, tensor), target.entry) for part, tensor in tensors)
    return np.asarray(values, np.float32)


def stored_rows(target: Target, tensors: Parts) -> Iterator[tuple[int, FloatArray]]:
    """The rows of a matrix in their order, some at a time, each with the number of its first.

    Only a matrix that is stored otherwise than the model has it is held as a whole.
    """
    part, tensor = tensors[0]
    rows = part.ref.stored_rows(target.entry) if len(tensors) == 1 else None
    if rows is None or isinstance(tensor, np.ndarray) or not np.array_equal(rows, np.arange(tensor.num_rows)):
        values = stored_values(target, tensors)
        yield 0, values.reshape(-1, values.shape[-1])
    else:
        yield from row_chunks(tensor)


def _values(part: Part, tensor: Matrix | FloatArray) -> FloatArray:
    if not isinstance(tensor, np.ndarray):
        tensor = native.dequantize_rows(tensor, np.arange(tensor.num_rows, dtype=np.int32))
    return tensor.reshape(part.room)[tuple(slice(size) for size in part.shape)]
