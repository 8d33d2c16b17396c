"""Parts of stored tensors, and how their values become those of a model's own tensors.

Checkpoints of one model differ in more than names: rows stand in another order, matrices are transposed,
norms are stored less one. A ``SourceRef`` names a stored tensor and the steps that undo such differences.
Steps are carried out for the rows that are asked for, so that a large matrix is never held as a whole
unless a step needs it.

Letters: N rows, M columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Shape = tuple[int, ...]
Indices = NDArray[np.int64]
# Values of some rows, in the order asked for.
ReadRows = Callable[[Indices], FloatArray]


class Step(Protocol):
    """One difference between what is stored and what is wanted. ``below`` is the shape before the step."""

    def shape(self, below: Shape) -> Shape:
        """The shape after it.

        Raises:
            ValueError: the step cannot be done with such a tensor.
        """
        ...

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """Some rows after it; ``read`` gives those before it."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows start, start + stride, ... below stop."""

    start: int
    stop: int
    stride: int = 1

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        if self.stop > below[0]:
            raise ValueError(f"has {below[0]} rows, not {self.stop}")
        return (len(range(self.start, self.stop, self.stride)), *below[1:])

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        return read(self.start + self.stride * wanted)


@dataclass(frozen=True, eq=False)
class TakeRows:
    """Row i is the row ``order[i]`` of what is stored, or zeros where that is -1."""

    order: Indices

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        if self.order.max() >= below[0]:
            raise ValueError(f"has {below[0]} rows, not {self.order.max() + 1}")
        return (len(self.order), *below[1:])

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        order = self.order[wanted]
        rows = read(np.maximum(order, 0))
        rows[order < 0] = 0
        return rows


@dataclass(frozen=True, eq=False)
class TakeColumns:
    """Column i is the column ``order[i]`` of what is stored, or zeros where that is -1."""

    order: Indices

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        if len(below) != 2 or self.order.max() >= below[1]:
            raise ValueError(f"has shape {below}, not {self.order.max() + 1} columns")
        return (below[0], len(self.order))

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        rows = read(wanted)[:, self.order]
        rows[:, self.order < 0] = 0
        return rows


@dataclass(frozen=True)
class Transposed:
    """Rows and columns exchanged within each of ``num_blocks`` blocks of rows, each transposed alone."""

    num_blocks: int = 1

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        if len(below) != 2 or below[0] % self.num_blocks:
            raise ValueError(f"has shape {below}, not {self.num_blocks} matrices of rows and columns")
        return (self.num_blocks * below[1], below[0] // self.num_blocks)

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step; holds the blocks that the rows lie in."""
        num_rows, num_cols = below[0] // self.num_blocks, below[1]
        block, column = np.divmod(wanted, num_cols)
        found = np.empty((len(wanted), num_rows), np.float32)
        for index in np.unique(block).tolist():
            stored = read(np.arange(index * num_rows, (index + 1) * num_rows))
            found[block == index] = stored[:, column[block == index]].T
        return found


@dataclass(frozen=True)
class Reshaped:
    """The same values in another shape; ``stored`` is the one before, where who writes it knows that."""

    to: Shape
    stored: Shape | None = None

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        if math.prod(below) != math.prod(self.to):
            raise ValueError(f"has shape {below}, which is not {self.to} in another form")
        return self.to

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step; holds the whole tensor where the rows differ."""
        if below and below[0] == self.to[0]:
            return read(wanted).reshape(len(wanted), *self.to[1:])
        return read(np.arange(below[0] if below else 1)).reshape(self.to)[wanted]


@dataclass(frozen=True)
class Filled:
    """The same values, with zeros behind them on each axis, where the shape is larger."""

    to: Shape

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        if len(below) != len(self.to) or any(old > new for old, new in zip(below, self.to, strict=True)):
            raise ValueError(f"has shape {below}, for which {self.to} has no room")
        return self.to

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        found = np.zeros((len(wanted), *self.to[1:]), np.float32)
        is_stored = wanted < below[0]
        if is_stored.any():
            missing = [(0, new - old) for old, new in zip(below[1:], self.to[1:], strict=True)]
            found[is_stored] = np.pad(read(wanted[is_stored]), [(0, 0), *missing])
        return found


@dataclass(frozen=True)
class PlusOne:
    """The weight of a norm that is stored less one."""

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        return below

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        return np.add(read(wanted), 1, dtype=np.float32)


@dataclass(frozen=True)
class Negated:
    """The values with the other sign."""

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        return below

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        return np.negative(read(wanted), dtype=np.float32)


@dataclass(frozen=True)
class MinusExp:
    """-exp of what is stored: decay rates that are stored as logarithms."""

    def shape(self, below: Shape) -> Shape:
        """See Step."""
        return below

    def rows(self, wanted: Indices, below: Shape, read: ReadRows) -> FloatArray:
        """See Step."""
        return np.negative(np.exp(read(wanted)), dtype=np.float32)


@dataclass(frozen=True)
class SourceRef:
    """A part of a stored tensor: entry ``index`` of its first axis, changed by ``steps`` in their order, then
    ``rows`` [start, stop) of that.
    """

    name: str
    index: int | None = None
    rows: tuple[int, int] | None = None
    steps: tuple[Step, ...] = field(default=())

    def slice_rows(self, start: int, stop: int) -> SourceRef:
        """Rows [start, stop) of this part."""
        first = 0 if self.rows is None else self.rows[0]
        return SourceRef(self.name, self.index, (first + start, first + stop), self.steps)

    def shape(self, stored: Shape) -> Shape:
        """The shape of the part of a tensor of this shape.

        Raises:
            ValueError: it has no such part.
        """
        shape = stored
        if self.index is not None:
            if not stored or self.index >= stored[0]:
                raise ValueError(f"has shape {stored}, no entry {self.index}")
            shape = stored[1:]
        for step in self.steps:
            shape = step.shape(shape)
        return shape if self.rows is None else (self.rows[1] - self.rows[0], *shape[1:])

    def stored_rows(self, stored: Shape) -> Indices | None:
        """The rows that the part consists of, in their order; None where a step does more than choose rows.

        ``stored`` is the shape of the tensor, or of its entry where the part has an index.
        """
        shapes = [stored]
        for step in self.steps:
            shapes.append(step.shape(shapes[-1]))
        start, stop = self.rows or (0, shapes[-1][0])
        rows = np.arange(start, stop)
        for step in reversed(self.steps):
            match step:
                case Rows():
                    rows = step.start + step.stride * rows
                case TakeRows() if step.order.min() >= 0:
                    rows = step.order[rows]
                case _:
                    return None
        return rows


def read_part(ref: SourceRef, stored: Shape, read: Callable[[int, int], FloatArray]) -> FloatArray:
    """The values of a part, C-contiguous.

    ``stored`` is the shape of the tensor, or of its entry where the part has an index; ``read(start, stop)``
    gives consecutive rows of that. Values that are not finite, or become so, are given as they are: who takes
    them refuses them by the tensor's name, and NumPy's warnings would only stand before that.
    """
    shapes = [stored]
    for step in ref.steps:
        shapes.append(step.shape(shapes[-1]))
    num_rows = shapes[-1][0] if shapes[-1] else 1
    start, stop = ref.rows or (0, num_rows)
    with np.errstate(all="ignore"):
        if not ref.steps:
            return np.asarray(read(start, stop), np.float32, order="C")
        rows = _after_steps(ref, shapes, np.arange(start, stop), read)
        return np.ascontiguousarray(rows, np.float32)


def _after_steps(
    ref: SourceRef, shapes: list[Shape], wanted: Indices, read: Callable[[int, int], FloatArray]
) -> FloatArray:
    """Rows after all steps; ``shapes`` are those before each of them, and after the last."""

    def rows_after(num_steps: int, wanted: Indices) -> FloatArray:
        if num_steps == 0:
            return _rows(wanted, read)
        below = shapes[num_steps - 1]
        return ref.steps[num_steps - 1].rows(wanted, below, lambda rows: rows_after(num_steps - 1, rows))

    return rows_after(len(ref.steps), wanted)


def _rows(wanted: Indices, read: Callable[[int, int], FloatArray]) -> FloatArray:
    """Rows in any order, by one read of the span that they lie in."""
    first, last = int(wanted.min()), int(wanted.max())
    return read(first, last + 1)[wanted - first]


def half_rotation_rows(num_heads: int, head_dim: int, rotary_dim: int) -> TakeRows:
    """Rows of queries or keys whose rotated pairs stand side by side, (2 i, 2 i + 1), so that they stand half
    of ``rotary_dim`` apart, as compiled code rotates them. Entries of a head behind ``rotary_dim`` stay.
    """
    half = np.arange(rotary_dim // 2)
    head = np.concatenate([2 * half, 2 * half + 1, np.arange(rotary_dim, head_dim)])
    return TakeRows((np.arange(num_heads)[:, None] * head_dim + head).ravel())
