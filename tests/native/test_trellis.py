"""The encoder of trellis codes: no change of one path bit would help, whatever its neighbours become."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe import native
from edgemoe.native import reference

LEVELS = {"t2": (1, 4, 8, 15), "t3": (1, 3, 5, 7, 10, 13, 18, 22)}
COLUMNS = 32


def subsets(path):
    """Which of four subsets the places of cycles (..., 64) have their values from, by the path bits."""
    after = {k: np.roll(path, -k, axis=-1) for k in (1, 2, 4, 6)}
    return 2 * (path ^ after[1] ^ after[6]) + (after[2] ^ after[4])


def path_bits(packed, format):
    """Path bits (8 quads, 64) of 16 rows of one block, by their number in the cycle."""
    codes = packed[64:128].reshape(16, 4)  # base and scales take 64 bytes
    return np.stack([(codes >> bit & 1).T.ravel() for bit in (0, 4, 2, 6, 1, 5, 3, 7)]).astype(np.int64)


def units(packed):
    """Base times scale of 16 rows (16, 1) of one block."""
    base = (packed[:32].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return (base * reference.NIBBLE_SCALES[np.concatenate([packed[32:40] & 15, packed[32:40] >> 4])])[:, None]


def in_cycles(block):
    """Columns of a block (16, 32) as quads (8, 64)."""
    return block.reshape(16, 8, 4).transpose(1, 2, 0).reshape(8, 64)


@pytest.mark.parametrize("format", LEVELS)
def test_no_flip_of_a_path_bit_lowers_the_error(format):
    half = np.array(LEVELS[format], np.float64)
    levels = np.concatenate([-half[::-1], half])
    num_better = 0
    for seed in range(4):
        weights = np.random.default_rng(seed).standard_normal((16, COLUMNS)).astype(np.float32)
        packed = native.quantize(weights, format)
        unit = units(packed)
        wanted, square = in_cycles(weights / unit), in_cycles(np.broadcast_to(unit**2, weights.shape))
        # Cost of the best value of each subset at every place.
        costs = np.stack([((wanted[..., None] - levels[s::4]) ** 2).min(axis=-1) * square for s in range(4)])

        def total(path, costs=costs):
            return np.take_along_axis(costs, subsets(path)[None], axis=0)[0].sum(axis=-1)

        path = path_bits(packed, format)
        best = total(path)
        change = native.dequantize(packed, format, 16, COLUMNS) - weights
        np.testing.assert_allclose(best, (in_cycles(change) ** 2).sum(axis=-1), rtol=1e-3)
        for place in range(64):
            flipped = path.copy()
            flipped[:, place] ^= 1
            num_better += int((total(flipped) < best * (1 - 1e-6)).sum())
    # Where the cycle closes, the best way may be missed.
    assert num_better <= 4
