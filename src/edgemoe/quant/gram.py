"""Rounding a matrix for its inputs: weights that meet large or related inputs are rounded with more care.

Letters: T tokens, D model width, F expert width, N rows and M columns of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from edgemoe import native
from edgemoe.native import ByteArray, FloatArray, Matrix
from edgemoe.quant.plan import BitPlan

# Share of the mean square that is added to every column's: the calibration text is only a sample. Of 0.001,
# 0.01 and 0.1 this one had the least error on held-out text at 2 bits.
DAMPING = 0.1


class ExpertInputs(Protocol):
    """What the experts of a model are fed. Read by one thread."""

    @property
    def identity(self) -> str:
        """Equal for two sources of the same inputs."""
        ...

    def rows(self, layer: int, expert: int) -> tuple[FloatArray, FloatArray]:
        """Inputs x (T, D) of an expert, and how much each counts (T,)."""
        ...


def refines(plan: BitPlan) -> bool:
    """Whether any expert of a plan has a format that is rounded for its inputs."""
    formats = (plan.default, *plan.overrides.values())
    return any(native.FORMAT_TRAITS[name].is_refined for each in formats for name in each.to_json())


def gram(x: FloatArray, weights: FloatArray) -> FloatArray:
    """The weighted mean of x^T x (M, M) over inputs x (T, M), damped; its diagonal is positive."""
    scaled = x * np.sqrt(weights / weights.sum())[:, None]
    found = scaled.T @ scaled
    mean = float(np.trace(found)) / len(found)
    found[np.diag_indices_from(found)] += DAMPING * mean if mean > 0 else 1.0
    return np.ascontiguousarray(found, np.float32)


def expert_grams(
    x: FloatArray,
    weights: FloatArray,
    raising: Iterable[tuple[FloatArray | None, FloatArray]],
    activation: str,
    biases: Sequence[FloatArray] = (),
) -> dict[str, FloatArray]:
    """Grams of an expert's gate, up and down, from its inputs x (T, D) and their weights (T,).

    ``biases``, if any, are those of gate (where there is one) and up, (F,) each.

    ``raising`` gives the rows of gate (None where there is none) and up in chunks of at most D, so that no
    whole matrix is held; what down is fed follows from them.
    """
    raised = gram(x, weights)
    inner: list[FloatArray] = []
    first = 0
    for gate, up in raising:
        part = [bias[first : first + len(up)] for bias in biases]
        inner.append(_inner(x, gate, up, activation, part))
        first += len(up)
    return {"gate": raised, "up": raised, "down": gram(np.concatenate(inner, axis=1), weights)}


def _inner(
    x: FloatArray,
    gate: FloatArray | None,
    up: FloatArray,
    activation: str,
    biases: Sequence[FloatArray],
) -> FloatArray:
    """What R <= D rows of gate and up make of x, (T, R): an expert whose down only copies."""
    copies = _as_it_is(np.eye(x.shape[1], len(up), dtype=np.float32))
    first = None if gate is None else _as_it_is(gate)
    none = np.zeros(x.shape[1], np.float32)  # of down
    added = np.concatenate([*biases, none]) if biases else None
    return native.expert_ffn(x, first, _as_it_is(up), copies, activation, biases=added)[:, : len(up)]


def _as_it_is(weights: FloatArray) -> Matrix:
    weights = np.ascontiguousarray(weights)
    return Matrix(native.quantize(weights, "f32"), "f32", *weights.shape)


def quantize_for(weights: FloatArray, format: str, gram: FloatArray | None) -> ByteArray:
    """Pack weights (N, M) for inputs with this gram (M, M); without one as :func:`native.quantize` does."""
    if gram is None or not native.FORMAT_TRAITS[format].is_refined:
        return native.quantize(weights, format)
    packed = native.quantize(weights, format, np.ascontiguousarray(np.diagonal(gram)))
    native.refine(weights, format, gram, packed)
    return packed
