"""How often one expert follows another, counted and smoothed.

Letters: N tokens, K chosen, E experts of a layer, E1 of the layer before, E2 of the one before that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemoe.native import FloatArray

# Pseudo-counts: how much must have been seen before a row outweighs what it is smoothed towards.
SINGLE_PRIOR, PAIR_PRIOR = 8.0, 4.0


def smoothed(
    given: NDArray[np.int64], own: NDArray[np.int64], shape: tuple[int, int], base: NDArray[np.float64]
) -> FloatArray:
    """Probability of each own expert given one of the others, towards ``base`` where little was seen."""
    keys = given[:, :, None] * shape[1] + own[:, None, :]
    counts = np.bincount(keys.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    seen = np.bincount(given.ravel(), minlength=shape[0])[:, None]
    smoothed: FloatArray = ((counts + SINGLE_PRIOR * base) / (seen + SINGLE_PRIOR)).astype(np.float32)
    return smoothed


def smoothed_pairs(
    older: NDArray[np.int64],
    last: NDArray[np.int64],
    own: NDArray[np.int64],
    num_older: int,
    single: FloatArray,
) -> FloatArray:
    """Probability (E2, E1, E) of each own expert given one of either layer before."""
    num_last, num_own = single.shape
    pairs = (older[:, :, None] * num_last + last[:, None, :]).reshape(len(own), -1)
    keys = pairs[:, :, None] * num_own + own[:, None, :]
    shape = (num_older, num_last, num_own)
    counts = np.bincount(keys.ravel(), minlength=num_older * num_last * num_own).reshape(shape)
    seen = np.bincount(pairs.ravel(), minlength=num_older * num_last).reshape(num_older, num_last, 1)
    smoothed: FloatArray = ((counts + PAIR_PRIOR * single) / (seen + PAIR_PRIOR)).astype(np.float32)
    return smoothed
