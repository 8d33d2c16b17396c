"""Which experts of a layer the next token will use: what the eviction policy "forecast" asks.

Letters: T tokens, E experts of a layer, K chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgemoe.native import FloatArray, IntArray, Matrix, UseStatistics


class NextUse:
    """Fitted matrices (E, columns of ``gate_features``) by position; they give about a probability."""

    def __init__(self, heads: Mapping[int, Matrix]) -> None:
        self.heads = heads

    def tell(
        self,
        statistics: UseStatistics,
        position: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
    ) -> None:
        """Tell the policy's statistics what the token after the last of x is likely to use of this layer.

        The last arguments are those of ``Predictor.forecast``. Nothing where nothing is fitted for the layer.
        """
        head = self.heads.get(position)
        if head is not None:
            statistics.expect_from(position, x, expert_ids, weights, head)
