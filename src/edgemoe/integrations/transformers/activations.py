"""Which activation an expert of transformers has, recognised by what it computes.

Names in configurations are many, and some classes do more than their name says: they clamp, raise or bend. So
the function itself is asked for values, which must be those of the core's reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from edgemoe.errors import UnsupportedModelError
from edgemoe.native import ops_reference

# Inner values (N, F) of gate and up, or of up alone, which is then the first.
Inner = Callable[[torch.Tensor, "torch.Tensor | None"], torch.Tensor]
Doubles = NDArray[np.float64]

_PLAIN = ("silu", "gelu", "gelu_tanh", "relu", "relu2")
# Functions that compute in single precision inside agree to this.
_TOLERANCE = 2e-5
# Where every clamp has bitten, and no product of two leaves single precision.
_FAR = 1e6


def find_activation(inner: Inner, is_gated: bool, path: str) -> str:
    """The core's name of an activation.

    Raises:
        UnsupportedModelError: the core has none that computes this, naming ``path``.
    """
    gate, up = _grid()
    found = _ask(inner, gate, up if is_gated else None)
    for name in _candidates(inner, is_gated):
        expected = ops_reference.activate(name, gate, up if is_gated else None)
        if np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            return name
    raise UnsupportedModelError(
        f"{path}: its experts have an activation that edgemoe does not compute; it knows {', '.join(_PLAIN)}"
        " and clamped or capped SwiGLU"
    )


def _grid() -> tuple[Doubles, Doubles]:
    """Gates and ups from small to beyond usual clamps, each gate with several ups."""
    side = np.concatenate([np.linspace(-4, 4, 33), [-60.0, -25.0, -12.0, -7.5, 7.5, 12.0, 25.0, 60.0]])
    gate, up = np.meshgrid(side, side[::3])
    return gate.reshape(1, -1), up.reshape(1, -1)


def _ask(inner: Inner, gate: Doubles, up: Doubles | None) -> Doubles:
    with torch.no_grad():
        values = inner(torch.from_numpy(gate.copy()), None if up is None else torch.from_numpy(up.copy()))
    return values.double().numpy()


def _candidates(inner: Inner, is_gated: bool) -> Iterator[str]:
    yield from _PLAIN
    if is_gated:
        yield from _measured(inner)


def _measured(inner: Inner) -> Iterator[str]:
    """Clamped and capped SwiGLU with the numbers that the function itself shows."""

    def at(gate: float, up: float) -> float:
        return float(_ask(inner, np.array([[gate]]), np.array([[up]]))[0, 0])

    small = 1e-3
    slope = (at(1, small) - at(1, -small)) / (2 * small)  # of up, where nothing clamps it
    if not 0 < slope < 1:
        return
    raised_by = _rounded(at(1, 0) / slope)
    limit = _limit((at(1, _FAR) - at(1, -_FAR)) / (2 * slope))
    alpha = _rounded(math.log(slope / (1 - slope)))
    highest = _limit((at(_FAR, small) - at(_FAR, -small)) / (2 * small))
    if highest <= 0:
        return
    if alpha > 0:
        yield f"clamped_glu:{_gate_limit(highest, alpha)!r}:{limit!r}:{alpha!r}:{raised_by!r}"
        # Clamped after its logistic function is taken, which below the limit is nearly the same.
        yield f"clamped_glu:{highest!r}:{limit!r}:{alpha!r}:{raised_by!r}"
    if math.isfinite(highest) and math.isfinite(limit):
        yield f"capped_swiglu:{highest!r}:{limit!r}"


def _gate_limit(highest: float, alpha: float) -> float:
    """The gate g whose g / (1 + exp(-alpha g)) is ``highest``, where g is at least that."""
    gate = highest
    for _ in range(50) if math.isfinite(highest) else ():
        gate = highest * (1 + math.exp(-alpha * gate))
    return _rounded(gate)


def _limit(value: float) -> float:
    return math.inf if value > _FAR / 2 else _rounded(value)


def _rounded(value: float) -> float:
    """Without what arithmetic in single precision adds to a number that somebody chose."""
    return float(f"{value:.5g}")
