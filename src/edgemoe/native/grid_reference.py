"""What codes of grids mean, in NumPy: numbers of points, which 4 or 8 columns have together, and signs.

Follows native/kernels/layout.h; the points are those of the gguf library, so the tests need it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgemoe.native.matrix import BLOCK, ROW_GROUP, ByteArray, FloatArray


class Grid(NamedTuple):
    """How a format's blocks hold the numbers of its points."""

    num_cols: int  # of a point
    high_bits: int  # of a number, beyond 8
    unit: float  # of scales
    has_half_scales: bool = False

    @property
    def num_points(self) -> int:
        """Points of a block."""
        return BLOCK // self.num_cols

    @property
    def own_scale_bytes(self) -> int:
        """Bytes of the scales of 16 rows and a block."""
        return ROW_GROUP if self.has_half_scales else ROW_GROUP // 2

    @property
    def scale_bytes(self) -> int:
        """The same with the high bits of the numbers, which follow the scales."""
        return self.own_scale_bytes + ROW_GROUP * self.num_points * self.high_bits // 8

    def scales(self, own: ByteArray) -> FloatArray:
        """Scales (16, 1 or 2) of a block without the factor that 256 columns share."""
        data = own[: self.own_scale_bytes]
        numbers = np.stack([data & 15, data >> 4], axis=1) if self.has_half_scales else nibbles(data)[:, None]
        return np.asarray((2 * numbers.astype(np.float32) + 1) * self.unit, np.float32)

    def high_parts(self, own: ByteArray) -> np.ndarray:
        """What the numbers (16, points) of a block have above 8 bits."""
        data = own[self.own_scale_bytes :].astype(np.int64)
        num_bits = self.num_points * self.high_bits
        words = np.zeros(ROW_GROUP, np.int64)
        if num_bits == 4:
            words = nibbles(data)
        for i in range(num_bits // 8):
            words = words | data[ROW_GROUP * i : ROW_GROUP * (i + 1)] << 8 * i
        shifts = self.high_bits * np.arange(self.num_points)
        return words[:, None] >> shifts & (1 << self.high_bits) - 1


GRIDS = {
    "iq1_s": Grid(8, 4, 1),
    "iq1_m": Grid(8, 4, 1, has_half_scales=True),
    "iq2_xxs": Grid(8, 0, 1 / 8),
    "iq2_xs": Grid(8, 1, 1 / 8, has_half_scales=True),
    "iq2_s": Grid(8, 2, 1 / 8, has_half_scales=True),
    "iq3_xxs": Grid(4, 0, 1 / 4),
    "iq3_s": Grid(4, 1, 1),
}


def grid_values(data: ByteArray, format: str, own: ByteArray) -> FloatArray:
    """What the codes of a block stand for (16, 32), ``own`` being its scales with the high bits."""
    grid = GRIDS[format]
    chunks = data.reshape(-1, ROW_GROUP, 4)
    low = np.concatenate(list(chunks[: grid.num_points // 4]), axis=1).astype(np.int64)
    numbers = low | grid.high_parts(own) << 8
    if format.startswith("iq1"):
        sides = np.where(numbers >> 11, 1, -1)[..., None] / 8
        return np.asarray((_points("iq1_s")[numbers & 2047] + sides).reshape(ROW_GROUP, BLOCK), np.float32)
    values = _points(format)[numbers].reshape(ROW_GROUP, 8, 4)
    signs = chunks[-1][:, None] >> np.arange(8)[:, None] & 1
    return np.asarray(np.where(signs, -values, values).reshape(ROW_GROUP, BLOCK), np.float32)


def nibbles(data: np.ndarray) -> np.ndarray:
    """The nibble of each row (16,), of 8 bytes."""
    return np.concatenate([data & 15, data >> 4])


def _points(format: str) -> FloatArray:
    from gguf import quants

    kind: Any = getattr(quants, format.upper())
    kind.init_grid()
    return np.asarray(kind.grid[0, 0], np.float32)
