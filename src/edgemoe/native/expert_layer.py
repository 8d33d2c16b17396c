"""The routed experts of one layer on one batch of tokens, computed in any order, summed in a fixed one.

Letters: T tokens, D width, F expert width, K chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgemoe.native.matrix import FloatArray, Matrix, expert_ffn, expert_ffns_of_token
from edgemoe.native.ops import IntArray, combine


class ExpertWeights(NamedTuple):
    """One expert: gate and up (F, D), down (D, F); some families have no gate."""

    gate: Matrix | None
    up: Matrix
    down: Matrix


class ExpertLayerOutput:
    """Collects the outputs of single experts in any order and sums them in the order of their ranks."""

    def __init__(self, x: FloatArray, expert_ids: IntArray, activation: str) -> None:
        num_tokens, top_k = expert_ids.shape
        self._x = x
        self._ids = expert_ids
        self._activation = activation
        self._parts = np.empty((num_tokens, top_k, x.shape[1]), np.float32)

    def add(self, expert: int, weights: ExpertWeights) -> None:
        """Compute one expert for the tokens that chose it."""
        if len(self._x) == 1:
            # A decode step: no rows to gather, and indexing would cost as much as a small expert.
            rank = self._ids[0].tolist().index(expert)
            out = self._parts[0, rank : rank + 1]
            expert_ffn(self._x, weights.gate, weights.up, weights.down, self._activation, out)
            return
        tokens, ranks = np.nonzero(self._ids == expert)
        y = expert_ffn(self._x[tokens], weights.gate, weights.up, weights.down, self._activation)
        self._parts[tokens, ranks] = y

    def add_all(self, experts: Mapping[int, ExpertWeights]) -> None:
        """Compute several experts; for a single token in one go, which is faster."""
        if len(self._x) == 1:
            ids: list[int] = self._ids[0].tolist()
            ranks = [ids.index(expert) for expert in experts]
            expert_ffns_of_token(self._x, list(experts.values()), ranks, self._activation, self._parts[0])
            return
        for expert, weights in experts.items():
            self.add(expert, weights)

    def combine(self, weights: FloatArray) -> FloatArray:
        """The sum (T, D) weighted by (T, K); every chosen expert has been added."""
        return combine(self._parts, weights)
