"""Which experts the next layers will choose, said before their routers can.

Asked in compiled code at every layer; one written in Python does as well, more slowly.

Letters: T tokens, D width, E experts of a layer, K chosen, S layers that have experts. A position is a
layer's place among those, 0 to S - 1; after the last comes the first, of the next token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgemoe import native
from edgemoe.native import FloatArray, IntArray, Matrix, Router

# (position, scores (T, E)); a higher score is likelier. Scores compare within one row only.
Forecast = tuple[int, FloatArray]
COLUMN_MULTIPLE = 32  # packed matrices have columns in multiples of this


class Predictor(Protocol):
    """Forecasts the experts of layers after one whose router has spoken. Used by one thread."""

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[Forecast]:
        """Scores for the next ``lookahead`` layers or fewer, the nearest first.

        ``x`` (T, D) is what the layer's router saw, ``expert_ids`` and ``weights`` (T, K) what it chose.
        Called once for each layer in the order in which they run. May keep nothing of the arrays without
        copying them.

        Raises:
            ValueError: these do not fit what the predictor was made for.
        """
        ...


class NoPredictor:
    """Says nothing: every expert is read when its router asks for it."""

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[Forecast]:
        """See Predictor."""
        return []


@dataclass(frozen=True, slots=True)
class GateHead:
    """Routers of the layers after one, as they act on that one's state, stacked into one matrix.

    ``matrix`` is (sum of the targets' E, columns); its columns are those of ``gate_features``.
    """

    matrix: Matrix
    targets: Sequence[tuple[int, int]]  # (position, E), in the order of the rows


def num_gate_columns(width: int, num_experts: int) -> int:
    """Columns of a gate head's matrix: D of the state, E of the choice, a constant, and padding."""
    columns = width + num_experts + 1
    return columns + -columns % COLUMN_MULTIPLE


def gate_features(x: FloatArray, expert_ids: IntArray, weights: FloatArray, num_experts: int) -> FloatArray:
    """What a gate head sees (T, columns): the state, the layer's routing weights by expert, and 1.

    The choice stands for what its experts are about to add to the state, which is not computed yet.
    """
    num_tokens, width = x.shape
    features = np.zeros((num_tokens, num_gate_columns(width, num_experts)), np.float32)
    features[:, :width] = x
    features[:, width + num_experts] = 1
    features[np.arange(num_tokens)[:, None], width + expert_ids] = weights
    return features


class GatePredictor(native.GatePredictor):
    """Routers of the next layers on the present state, as they are or corrected by regression."""

    def __init__(
        self,
        heads: Mapping[int, GateHead],
        num_experts: Sequence[int],
        routers: Mapping[int, Router] | None = None,
    ) -> None:
        """``heads`` by position; ``num_experts`` of every position.

        ``routers`` by the position that is forecast make choice scores of its logits: where experts are
        chosen by more than their logits, the order of these is not that of the choice.

        Raises:
            ValueError: a head or a router does not fit the layers.
        """
        matrices = {position: (head.matrix, list(head.targets)) for position, head in heads.items()}
        super().__init__(matrices, list(num_experts), dict(routers or {}))


@dataclass(frozen=True, slots=True)
class TransitionTable:
    """Probabilities of a layer's experts given those chosen in the two layers before it.

    ``pair`` (E2, E1, E) is given one expert of each, already smoothed towards ``single`` (E1, E), which
    is smoothed towards the layer's own frequencies: a key never seen falls back to them. Where a model
    has too many experts for ``pair`` it is None, and ``older`` (E2, E) takes its part.
    """

    single: FloatArray
    older: FloatArray
    pair: FloatArray | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Experts of the layer that is forecast, and of the two before it, the nearer first."""
        (previous, own), (before, _) = self.single.shape, self.older.shape
        return own, previous, before

    def scores(self, previous: IntArray, before: IntArray | None) -> FloatArray:
        """Mean probability (T, E) over the chosen (T, K) of the last layer and of the one before.

        What ``TablePredictor`` computes of a token, for all tokens of a trace at once.
        """
        mean: FloatArray = self.single[previous].mean(axis=1)
        if before is None:
            return mean
        if self.pair is None:
            mean += self.older[before].mean(axis=1)
        else:
            mean = self.pair[before[:, :, None], previous[:, None, :]].mean(axis=(1, 2))
        return mean


class TablePredictor(native.TablePredictor):
    """The paper's (section III-C): experts of the two previous layers give those of the next.

    A score is the mean probability over those chosen. The layers before a token's first are the last ones
    of the token before it.
    """

    def __init__(self, tables: Mapping[int, TransitionTable], num_experts: Sequence[int]) -> None:
        """``tables`` by the position that they forecast; ``num_experts`` of every position.

        Raises:
            ValueError: a table does not fit the layers.
        """
        arrays = {position: (t.single, t.older, t.pair) for position, t in tables.items()}
        super().__init__(arrays, list(num_experts))


class HybridPredictor(native.HybridPredictor):
    """The gate's scores plus the logarithm of the table's, weighted per layer.

    ``table_weights`` by the position that is forecast; where the gate is sure of itself it is small, and
    where it is 0 the table is not asked.
    """

    def __init__(self, gate: Predictor, table: TablePredictor, table_weights: Mapping[int, float]) -> None:
        super().__init__(native.compiled_predictor(gate), table, dict(table_weights))


class StepPredictor(native.StepPredictor):
    """A predictor that knows the layers of every step alone, in a model whose encoder's come before them.

    For a prompt it says nothing: its tokens need nearly all experts of a layer anyway.
    """

    def __init__(self, predictor: Predictor, first_step: int) -> None:
        """``first_step`` is the position that the predictor calls 0."""
        super().__init__(native.compiled_predictor(predictor), first_step)
