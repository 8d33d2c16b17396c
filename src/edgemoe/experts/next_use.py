"""Which experts of a layer the next token will use: what the eviction policy "forecast" asks.

Letters: T tokens, E experts of a layer, K chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgemoe import native
from edgemoe.experts.predictors import gate_features
from edgemoe.native import FloatArray, IntArray, Matrix


class NextUse:
    """Fitted matrices (E, columns of ``gate_features``) by position; they give about a probability."""

    def __init__(self, heads: Mapping[int, Matrix]) -> None:
        self._heads = heads
        # By position, and kept: making them anew took most of the time.
        self._features: dict[int, FloatArray] = {}

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray
    ) -> FloatArray | None:
        """Probabilities (E,), 0 or more, that the token after the last of x uses each expert of this layer.

        The arguments are those of ``Predictor.forecast``. None where nothing is fitted for the layer.
        """
        head = self._heads.get(position)
        if head is None:
            return None
        uses: FloatArray = native.matmul(self._fill(position, x[-1], expert_ids[-1], weights[-1]), head)[0]
        return np.maximum(uses, 0.0, out=uses)

    def _fill(self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> FloatArray:
        """``gate_features`` of one token."""
        num_experts, width = self._heads[position].num_rows, len(x)
        features = self._features.get(position)
        if features is None:
            features = gate_features(x[None], expert_ids[None], weights[None], num_experts)
            self._features[position] = features
        row = features[0]
        row[:width] = x
        row[width : width + num_experts] = 0
        row[width + expert_ids] = weights
        return features
