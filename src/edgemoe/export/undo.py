"""Tensors of a model → the stored tensor that they are read from: the steps of a SourceRef, backwards.

Letters: N rows, M columns.
"""

from __future__ import annotations

import numpy as np

from edgemoe.native import FloatArray
from edgemoe.source_ref import (
    MinusExp,
    Negated,
    PlusOne,
    Reshaped,
    Rows,
    Shape,
    SourceRef,
    Step,
    TakeColumns,
    TakeRows,
    Transposed,
)


def stored_shape(ref: SourceRef, shape: Shape) -> Shape:
    """The smallest stored tensor, or entry of one, that has a part of this shape.

    Raises:
        ValueError: a step does not tell what stands before it.
    """
    for step in reversed(ref.steps):
        shape = _before(step, shape)
    return shape


def undo(ref: SourceRef, values: FloatArray, stored: Shape) -> FloatArray:
    """What the stored tensor holds of a part with these values; zeros where other parts lie."""
    shapes = [stored]
    for step in ref.steps:
        shapes.append(step.shape(shapes[-1]))
    for step, below in zip(reversed(ref.steps), reversed(shapes[:-1]), strict=True):
        values = _undone(step, values, below)
    return values


def _before(step: Step, shape: Shape) -> Shape:
    match step:
        case Rows():
            return (step.stop, *shape[1:])
        case TakeRows():
            return (int(step.order.max()) + 1, *shape[1:])
        case TakeColumns():
            return (shape[0], int(step.order.max()) + 1)
        case Transposed():
            return (step.num_blocks * shape[1], shape[0] // step.num_blocks)
        case Reshaped():
            if step.stored is None:
                raise ValueError("a change of shape does not say what it changed")
            return step.stored
    return shape


def _undone(step: Step, values: FloatArray, below: Shape) -> FloatArray:
    match step:
        case PlusOne():
            return np.subtract(values, 1, dtype=np.float32)
        case Negated():
            return np.negative(values, dtype=np.float32)
        case MinusExp():
            return np.log(-values, dtype=np.float32)
        case Reshaped():
            return values.reshape(below)
        case Transposed():
            blocks = values.reshape(step.num_blocks, below[1], -1)
            return np.ascontiguousarray(blocks.swapaxes(1, 2)).reshape(below)
    found = np.zeros(below, np.float32)
    match step:
        case Rows():
            found[step.start : step.stop : step.stride] = values
        case TakeRows():
            is_stored = step.order >= 0
            found[step.order[is_stored]] = values[is_stored]
        case TakeColumns():
            is_stored = step.order >= 0
            found[:, step.order[is_stored]] = values[:, is_stored]
        case _:
            raise ValueError(f"{type(step).__name__} cannot be taken back")
    return found
