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
        self._parts = np.empty((num_tokens * top_k, x.shape[1]), np.float32)
        self._places: IntArray | None = None
        if num_tokens > 1:
            # The outputs of one expert lie side by side: it writes them, and reads its tokens, in one go.
            ids = expert_ids.ravel()
            order = np.argsort(ids, kind="stable").astype(np.int32)
            self._places = np.empty_like(expert_ids)
            self._places.ravel()[order] = np.arange(len(order), dtype=np.int32)
            self._tokens: IntArray = order // np.int32(top_k)
            self._starts: list[int] = np.searchsorted(ids[order], np.arange(ids.max() + 2)).tolist()

    def add(self, expert: int, weights: ExpertWeights) -> None:
        """Compute one expert for the tokens that chose it."""
        if self._places is None:  # a decode step: its parts lie in the order of their ranks
            start = self._ids[0].tolist().index(expert)
            end, tokens = start + 1, None
        else:
            start, end = self._starts[expert], self._starts[expert + 1]
            tokens = self._tokens[start:end]
        out = self._parts[start:end]
        expert_ffn(self._x, weights.gate, weights.up, weights.down, self._activation, out, tokens)

    def add_all(self, experts: Mapping[int, ExpertWeights]) -> None:
        """Compute several experts; for a single token in one go, which is faster."""
        if self._places is None:
            ids: list[int] = self._ids[0].tolist()
            ranks = [ids.index(expert) for expert in experts]
            expert_ffns_of_token(self._x, list(experts.values()), ranks, self._activation, self._parts)
            return
        for expert, weights in experts.items():
            self.add(expert, weights)

    def combine(self, weights: FloatArray) -> FloatArray:
        """The sum (T, D) weighted by (T, K); every chosen expert has been added."""
        return combine(self._parts, weights, self._places)
