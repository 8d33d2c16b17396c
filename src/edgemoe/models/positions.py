"""A bias of the attention's scores by how far a key is from its query. Letters: H heads, B buckets."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.mixer_spec import PositionBiasSpec
from edgemoe.native import FloatArray


class DistanceBias:
    """The bias that all layers of a decoder share, from a flat table (B * H,)."""

    def __init__(self, spec: PositionBiasSpec, table: FloatArray, num_heads: int) -> None:
        self._spec = spec
        self._table = table
        self._num_heads = num_heads
        self._bias: FloatArray | None = None

    def __call__(self, reach: int) -> FloatArray:
        """The bias (H, 2 reach - 1) of distances below ``reach``; the last one is kept."""
        if self._bias is None or self._bias.shape[1] != 2 * reach - 1:
            self._bias = distance_bias(self._spec, self._table, self._num_heads, reach, is_causal=True)
        return self._bias


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
