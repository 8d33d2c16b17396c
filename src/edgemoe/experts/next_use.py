"""Which experts of a layer the next token will use: what the eviction policy "forecast" asks.

Letters: T tokens, E experts of a layer, K chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgemoe import native
from edgemoe.native import FloatArray, IntArray, Matrix


class NextUse:
    """Fitted matrices (E, columns of ``gate_features``) by position; they give about a probability."""

    def __init__(self, heads: Mapping[int, Matrix]) -> None:
        self._heads = heads

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray
    ) -> FloatArray | None:
        """How likely the token after the last of x uses each expert of this layer, (E,), some below 0.

        The arguments are those of ``Predictor.forecast``. None where nothing is fitted for the layer.
        """
        head = self._heads.get(position)
        if head is None:
            return None
        uses: FloatArray = native.gate_scores(x[-1:], expert_ids[-1:], weights[-1:], head.num_rows, head)[0]
        return uses
