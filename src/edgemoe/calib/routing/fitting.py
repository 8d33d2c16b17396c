"""Learning from a trace: routers that act one layer early, and how experts follow each other.

Letters: N tokens, D width, E experts, K chosen, C columns of gate_features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.calib.routing.recall import Recall, measure_recall
from edgemoe.calib.routing.regression import Ridge
from edgemoe.calib.routing.succession import smoothed, smoothed_pairs
from edgemoe.calib.trace import Trace
from edgemoe.engine.prediction import LOOKAHEAD, choice_routers, fitted_predictor, plain_weights
from edgemoe.errors import RequestError
from edgemoe.experts import FittedGate, FittedRouting, TransitionTable, gate_features, num_gate_columns
from edgemoe.models import DenseWeights, ModelSpec
from edgemoe.native import FloatArray, Router, dequantize
from edgemoe.progress import Progress

# The last part of every trace is not fitted on; it chooses the ridge and the tables' weights.
HELD_OUT_SHARE = 0.1
TABLE_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8)
WORTHWHILE = 0.005  # recall that asking the table must add, for it takes time
# Pairs of experts are too many to have been seen often, and too many to keep, beyond this size of table.
MAX_PAIR_ENTRIES = 1 << 18
MIN_TOKENS = 64
# What the library for linear algebra keeps for its threads, and tables.
_WORK_BYTES = 16 << 20


@dataclass(frozen=True)
class FitReport:
    """Recall on the held-out end of the trace, by predictor."""

    num_tokens: int
    recall: dict[str, Recall]


def fit_num_bytes(trace: Trace) -> int:
    """Memory that fitting takes beside the model's weights, at most.

    Of a layer there are its states, its features, those of the rows that are fitted, once more while a target
    is corrected, and in double precision a square of their columns, its vectors and what they are found in.
    """
    width, sizes = trace.states.shape[2], trace.num_experts
    columns = num_gate_columns(width, max(sizes))
    targets = len(trace.states) * 4 * sum(sorted(sizes)[-LOOKAHEAD:])
    squares = 5 * columns * columns * 8
    return 4 * len(trace.states) * columns * 4 + squares + 3 * targets + _WORK_BYTES


def fit_routing(
    trace: Trace, spec: ModelSpec, weights: DenseWeights, progress: Progress | None = None
) -> tuple[FittedRouting, FitReport]:
    """Fit gates and tables to a trace of this model.

    Raises:
        RequestError: the trace is of another model, or too short.
    """
    trace = trace.of_steps()
    _check(trace, spec)
    fit = _Fit(trace, spec, weights)
    num_layers = trace.catalog.num_layers
    gates, tables, table_weights, next_uses = {}, {}, {}, {}
    for position in range(num_layers):
        gates[position], next_uses[position] = fit.heads(position)
        tables[position] = fit.table(position)
        if progress is not None:
            progress(position + 1, num_layers)
    for position in range(num_layers):
        table_weights[position] = fit.table_weight(position, gates, tables[position])
    fitted = FittedRouting(gates, tables, table_weights, next_uses)
    recall = {
        name: measure_recall(
            fitted_predictor(fitted, name, trace.num_experts, fit.routers),
            trace,
            fit.num_fitted,
            fit.num_fitted + 512,
        )
        for name in ("table", "gate-fitted", "hybrid")
    }
    return fitted, FitReport(fit.num_fitted, recall)


def _check(trace: Trace, spec: ModelSpec) -> None:
    sizes = [spec.moe(layer).router.num_experts for layer in spec.decoder_moe_layers]
    if trace.num_experts != sizes or trace.states.shape[2] != spec.width:
        raise RequestError("the trace is of another model than this store; trace this store")
    if len(trace.states) < MIN_TOKENS:
        raise RequestError(f"the trace has {len(trace.states)} tokens; fitting needs {MIN_TOKENS} or more")


class _Fit:
    """One trace, cut into what is fitted on and what is held out."""

    def __init__(self, trace: Trace, spec: ModelSpec, weights: DenseWeights) -> None:
        self._trace, self._spec, self._weights = trace, spec, weights
        self._layers = spec.decoder_moe_layers
        self.routers = choice_routers(spec, weights)
        self.num_fitted = int(len(trace.states) * (1 - HELD_OUT_SHARE))
        is_start = np.zeros(len(trace.states) + 1, np.bool_)
        is_start[[start for start in trace.starts if start <= len(trace.states)]] = True
        # Rows are tokens that are followed by one of the same text.
        is_followed = ~is_start[1:]
        is_followed[-1] = False
        self._follows = ~is_start[:-1]
        followed = np.flatnonzero(is_followed)
        self._fit_rows = followed[followed < self.num_fitted - 1]
        # Two tokens in, so that whatever the tables look back at is there.
        self._held_out_rows = followed[followed >= self.num_fitted + 2]

    def heads(self, position: int) -> tuple[FittedGate, FloatArray]:
        """For the state of this position: routers of the next layers, or of the next token's first, and
        which experts the next token will use here.
        """
        last = len(self._layers) - 1
        targets = range(position + 1, min(position + LOOKAHEAD, last) + 1) if position < last else (0,)
        features = self._features(position)
        solver = Ridge(features[self._fit_rows])
        blocks = [self._correct(position, target, features, solver) for target in targets]
        gate = FittedGate(np.concatenate(blocks), tuple((t, self._trace.num_experts[t]) for t in targets))
        return gate, self._next_use(position, features, solver)

    def _correct(self, position: int, target: int, features: FloatArray, solver: Ridge) -> FloatArray:
        """The target's router with the correction that forecasts held-out choices best."""
        plain = self._plain(position, target)
        logits = self._logits(target)
        if target <= position:  # of the next token
            logits = np.roll(logits, -1, axis=0)
        rows = self._fit_rows
        candidates = [plain, *solver.solve(logits[rows] - features[rows] @ plain.T, plain)]
        return self._best(candidates, features, self._chosen(target, position), self.routers.get(target))

    def _next_use(self, position: int, features: FloatArray, solver: Ridge) -> FloatArray:
        """Regression on what was chosen, 1 or 0, at the next token: it gives probabilities."""
        chosen = self._chosen(position, position)
        uses = np.zeros((len(chosen), self._trace.num_experts[position]), np.float32)
        np.put_along_axis(uses, chosen.astype(np.int64), 1.0, axis=1)
        start = np.zeros((uses.shape[1], features.shape[1]), np.float32)
        return self._best(solver.solve(uses[self._fit_rows], start), features, chosen)

    def _best(
        self,
        candidates: Sequence[FloatArray],
        features: FloatArray,
        chosen: NDArray[np.int16],
        router: Router | None = None,
    ) -> FloatArray:
        """Of matrices (E, C), the one whose scores find most of the choices (N, K) on the held-out end."""
        rows = self._held_out_rows

        def recall(weights: FloatArray) -> float:
            return _recall(_choice_scores(features[rows] @ weights.T, router), chosen[rows])

        return max(candidates, key=recall)

    def table(self, position: int) -> TransitionTable:
        """How often experts of this position follow those of the two layers before it."""
        num_layers = len(self._layers)
        sizes = self._trace.num_experts
        previous, before = (position - 1) % num_layers, (position - 2) % num_layers
        rows = np.arange(1, self.num_fitted)
        rows = rows[self._follows[rows]]
        own = self._experts(position, rows)
        last = self._experts(previous, rows - (previous >= position))
        older = self._experts(before, rows - (before >= position))
        base = np.bincount(own.ravel(), minlength=sizes[position]) / len(rows)
        single = smoothed(last, own, (sizes[previous], sizes[position]), base)
        far = smoothed(older, own, (sizes[before], sizes[position]), base)
        pair = None
        if sizes[before] * sizes[previous] * sizes[position] <= MAX_PAIR_ENTRIES:
            pair = smoothed_pairs(older, last, own, sizes[before], single)
        return TransitionTable(single, far, pair)

    def table_weight(self, position: int, gates: dict[int, FittedGate], table: TransitionTable) -> float:
        """The share of the table in the hybrid that forecasts held-out choices best."""
        num_layers = len(self._layers)
        previous, before = (position - 1) % num_layers, (position - 2) % num_layers
        gate = gates[previous]
        start = 0
        for target, size in gate.targets:
            if target == position:
                break
            start += size
        rows = self._held_out_rows
        logits = self._features(previous)[rows] @ gate.weights[start : start + size].T
        scores = _choice_scores(logits, self.routers.get(position))
        token = rows + (previous >= position)  # whose choice is forecast
        prior = np.log(
            table.scores(
                self._experts(previous, token - (previous >= position)).astype(np.int32),
                self._experts(before, token - (before >= position)).astype(np.int32),
            )
            + 1e-6
        )
        chosen = self._chosen(position, previous)[rows]
        recalls = [_recall(scores + share * prior, chosen) for share in TABLE_WEIGHTS]
        best = int(np.argmax(recalls))
        return TABLE_WEIGHTS[best] if recalls[best] > recalls[0] + WORTHWHILE else 0.0

    def _features(self, position: int) -> FloatArray:
        trace, count = self._trace, len(self._trace.states)
        return gate_features(
            trace.states[:, position].astype(np.float32),
            trace.experts[:count, position].astype(np.int32),
            trace.weights[:count, position].astype(np.float32),
            trace.num_experts[position],
        )

    def _logits(self, position: int) -> FloatArray:
        router = self._weights.matrix(f"layers.{self._layers[position]}.router.weight")
        rows = dequantize(router.packed, router.format, router.num_rows, router.num_cols)
        logits: FloatArray = self._trace.states[:, position].astype(np.float32) @ rows.T
        bias = self._weights.optional_vector(f"layers.{self._layers[position]}.router.bias")
        return logits if bias is None else logits + bias

    def _plain(self, position: int, target: int) -> FloatArray:
        """Where the correction starts: the router as it is, or nothing for the next token's first."""
        if target > position:
            return plain_weights(self._spec, self._weights, self._layers[position], self._layers[target])
        sizes = self._trace.num_experts
        return np.zeros((sizes[target], num_gate_columns(self._spec.width, sizes[position])), np.float32)

    def _experts(self, position: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(self._trace.experts[rows, position], np.int64)

    def _chosen(self, target: int, position: int) -> NDArray[np.int16]:
        """Choices (N, K) of the target layer that the state of a position at the same row forecasts."""
        chosen = np.asarray(self._trace.experts[: len(self._trace.states), target])
        return np.roll(chosen, -1, axis=0) if target <= position else chosen


def _choice_scores(logits: FloatArray, router: Router | None) -> FloatArray:
    return logits if router is None else router.choice_scores(logits)


def _recall(scores: FloatArray, chosen: NDArray[np.int16]) -> float:
    k = chosen.shape[1]
    likeliest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return float((likeliest[:, :, None] == chosen[:, None, :]).any(axis=1).mean())
