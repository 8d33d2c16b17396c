"""Where the tokens of a call stand: angles to rotate by, or a bias of the attention's scores.

Letters: T tokens, R rotated pairs, H heads, B buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.spec import PositionBiasSpec
from edgemoe.native import FloatArray


@dataclass(frozen=True, slots=True)
class Positions:
    """``rotation`` is cos and sin (T, R); ``bias`` is as native.attention takes it."""

    rotation: tuple[FloatArray, FloatArray] | None = None
    bias: FloatArray | None = None


def distance_bias(
    spec: PositionBiasSpec, table: FloatArray, num_heads: int, reach: int, is_causal: bool
) -> FloatArray:
    """The bias of every distance below ``reach``, (H, 2 reach - 1), from a flat table (B * H,)."""
    distances = np.arange(1 - reach, reach)
    rows = table.reshape(spec.num_buckets, num_heads)[buckets(distances, spec, is_causal)]
    return np.ascontiguousarray(rows.T)


def buckets(distances: NDArray[np.int64], spec: PositionBiasSpec, is_causal: bool) -> NDArray[np.int64]:
    """The bucket of each distance of a key from its query (T5, arXiv 1910.10683, section 2.1).

    A distance of its own for half of the buckets, then logarithmically wider ones, the last for all from
    ``max_distance`` on. Where queries see both ways each direction has half of the buckets.
    """
    count = spec.num_buckets if is_causal else spec.num_buckets // 2
    after = 0 if is_causal else count * (distances > 0)
    steps = np.maximum(-distances, 0) if is_causal else np.abs(distances)
    exact = count // 2
    # In single precision, as the checkpoints were trained: some distances lie on a bucket's very edge.
    ratio = np.log(np.maximum(steps, 1).astype(np.float32) / np.float32(exact))
    wide = exact + (
        ratio / np.float32(math.log(spec.max_distance / exact)) * np.float32(count - exact)
    ).astype(np.int64)
    return np.asarray(after + np.where(steps < exact, steps, np.minimum(wide, count - 1)), np.int64)
