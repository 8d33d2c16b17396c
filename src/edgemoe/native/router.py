"""How a router's logits become a choice of experts and their weights.

Letters: T tokens, D width, E experts, K chosen experts. Arrays are C-contiguous float32 unless said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import edgemoe._native as _native
from edgemoe.native.matrix import FloatArray, Matrix

IntArray = NDArray[np.int32]


class Router(_native.Router):
    """The rule of one layer's router. ``ops_reference.route`` says in NumPy what it does."""

    def __init__(
        self,
        num_experts: int,
        top_k: int,
        score: str = "softmax",
        *,
        choice_bias: FloatArray | None = None,
        expert_scale: FloatArray | None = None,
        num_groups: int = 1,
        kept_groups: int = 1,
        groups_by_highest: bool = False,
        renormalize: bool = False,
        sum_eps: float = 0.0,
        is_eps_minimum: bool = False,
        scale: float = 1.0,
        jitter: float = 0.0,
    ) -> None:
        """``score`` makes weights of logits: the softmax over all experts or over the chosen, the sigmoid, or
        the sparse mixer (arXiv 2409.12136), which weights each of two experts among those within ``jitter``.

        ``choice_bias`` (E,) is added for the choice alone. The choice is among the ``kept_groups`` of
        ``num_groups`` with the highest sum of their two highest scores, or ``groups_by_highest`` with the
        highest score. If ``renormalize``, weights are divided by their sum, to which ``sum_eps`` is added,
        or which is at least that if ``is_eps_minimum``. They are multiplied by ``scale`` and
        ``expert_scale`` (E,).

        Raises:
            ValueError: unknown score, K or groups that do not fit E, or arrays of another length.
        """
        super().__init__(
            num_experts,
            top_k,
            score,
            choice_bias,
            expert_scale,
            num_groups,
            kept_groups,
            groups_by_highest,
            renormalize,
            sum_eps,
            is_eps_minimum,
            scale,
            jitter,
        )
        self.num_experts, self.top_k = num_experts, top_k

    def choice_scores(self, logits: FloatArray) -> FloatArray:
        """What experts are chosen by, the highest first, given logits (T, E); those too where nothing but
        their order matters. Experts that cannot be chosen have minus infinity.
        """
        scores = np.array(logits, np.float32, order="C")
        self.choice_scores_in_place(scores)
        return scores


def choose_experts(
    x: FloatArray, matrix: Matrix, bias: FloatArray | None, router: Router
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Experts of each token and their weights, both (T, K), and the choice scores (T, E).

    The logits are x (T, D) times the ``matrix`` (E, D), plus ``bias`` (E,). The highest choice scores come
    first, ties to the lower id.

    Raises:
        ValueError: shapes do not fit.
    """
    chosen = len(x), router.top_k
    ids, weights = np.empty(chosen, np.int32), np.empty(chosen, np.float32)
    choice = np.empty((len(x), router.num_experts), np.float32)
    _native.choose_experts_into(x, matrix, bias, router, ids, weights, choice)
    return ids, weights, choice
