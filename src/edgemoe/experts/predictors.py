"""Which experts the next layers will choose, said before their routers can.

Letters: T tokens, D width, E experts of a layer, K chosen, S layers that have experts. A position is a
layer's place among those, 0 to S - 1; after the last comes the first, of the next token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgemoe import native
from edgemoe.native import ROW_GROUP, FloatArray, IntArray, Matrix, packed_num_bytes

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
        Called once for each layer in the order in which they run.
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

    def rows_ahead(self, lookahead: int) -> Matrix:
        """The rows of the first ``lookahead`` targets, or some more where packing cannot part them."""
        matrix = self.matrix
        num_rows = sum(size for _, size in self.targets[:lookahead])
        if num_rows == matrix.num_rows or num_rows % ROW_GROUP:
            return matrix
        num_bytes = packed_num_bytes(matrix.format, num_rows, matrix.num_cols)
        return Matrix(matrix.packed[:num_bytes], matrix.format, num_rows, matrix.num_cols)


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


class GatePredictor:
    """Routers of the next layers on the present state, as they are or corrected by regression."""

    def __init__(self, heads: Mapping[int, GateHead], num_experts: Sequence[int]) -> None:
        """``heads`` by position; ``num_experts`` of every position."""
        self._heads = heads
        self._num_experts = num_experts
        self._rows_ahead: dict[tuple[int, int], Matrix] = {}

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[Forecast]:
        """See Predictor."""
        head = self._heads.get(position)
        if head is None:
            return []
        rows_ahead = self._rows_ahead.get((position, lookahead))
        if rows_ahead is None:
            rows_ahead = self._rows_ahead[position, lookahead] = head.rows_ahead(lookahead)
        scores = native.gate_scores(x, expert_ids, weights, self._num_experts[position], rows_ahead)
        forecasts, start = [], 0
        for target, num_experts in head.targets[:lookahead]:
            # Only the last token of a chunk is followed by one that has not run.
            rows = slice(None) if target > position else slice(-1, None)
            forecasts.append((target, scores[rows, start : start + num_experts]))
            start += num_experts
        return forecasts


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

    def scores(self, previous: IntArray, before: IntArray | None) -> FloatArray:
        """Mean probability (T, E) over the chosen (T, K) of the last layer and of the one before."""
        mean: FloatArray = self.single[previous].mean(axis=1)
        if before is None:
            return mean
        if self.pair is None:
            mean += self.older[before].mean(axis=1)
        else:
            mean = self.pair[before[:, :, None], previous[:, None, :]].mean(axis=(1, 2))
        return mean


class TablePredictor:
    """The paper's (section III-C): experts of the two previous layers give those of the next.

    The layers before a token's first are the last ones of the token before it.
    """

    def __init__(self, tables: Mapping[int, TransitionTable], num_layers: int) -> None:
        """``tables`` by the position that they forecast."""
        self._tables = tables
        self._num_layers = num_layers
        self._before: IntArray | None = None  # what the layer run before the present one chose

    def target(self, position: int) -> int:
        """The position that is forecast at this one."""
        return (position + 1) % self._num_layers

    def pass_over(self, expert_ids: IntArray) -> None:
        """A layer runs for which no forecast is wanted."""
        self._before = expert_ids

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[Forecast]:
        """See Predictor."""
        before, self._before = self._before, expert_ids
        if before is not None and (len(before) != len(expert_ids) or (position == 0 and len(before) > 1)):
            before = None  # another text, or another part of a prompt
        target = self.target(position)
        table = self._tables.get(target)
        if table is None:
            return []
        if target == 0:  # only the last token of a chunk is followed by one that has not run
            expert_ids, before = expert_ids[-1:], None if before is None else before[-1:]
        return [(target, table.scores(expert_ids, before))]


class HybridPredictor:
    """The gate's scores plus the logarithm of the table's, weighted per layer.

    ``table_weights`` by the position that is forecast; where the gate is sure of itself it is small, and
    where it is 0 the table is not asked.
    """

    def __init__(self, gate: Predictor, table: TablePredictor, table_weights: Mapping[int, float]) -> None:
        self._gate = gate
        self._table = table
        self._table_weights = table_weights

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[Forecast]:
        """See Predictor."""
        forecasts = self._gate.forecast(position, x, expert_ids, weights, lookahead)
        target = self._table.target(position)
        share = self._table_weights.get(target, 0.0)
        if not share:
            self._table.pass_over(expert_ids)
            return forecasts
        for _, prior in self._table.forecast(position, x, expert_ids, weights, 1):
            forecasts = [
                (t, scores + share * np.log(prior + 1e-6) if t == target else scores)
                for t, scores in forecasts
            ]
        return forecasts


class StepPredictor:
    """A predictor that knows the layers of every step alone, in a model whose encoder's come before them.

    For a prompt it says nothing: its tokens need nearly all experts of a layer anyway.
    """

    def __init__(self, predictor: Predictor, first_step: int) -> None:
        """``first_step`` is the position that the predictor calls 0."""
        self._predictor = predictor
        self._first_step = first_step

    def forecast(
        self, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray, lookahead: int
    ) -> list[Forecast]:
        """See Predictor."""
        first = self._first_step
        if position < first:
            return []
        forecasts = self._predictor.forecast(position - first, x, expert_ids, weights, lookahead)
        return [(target + first, scores) for target, scores in forecasts]
