"""The seam between a layer and its token mixer. Letters: T rows of a step, D width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgemoe.models.positions import DistanceBias
from edgemoe.models.rope import Rotation
from edgemoe.models.segments import Segment
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray


class TokenMixer(Protocol):
    """Mixes the tokens of each text. Used by one thread.

    The bits of a row depend on its text's tokens up to it, never on the other rows of the step or on how the
    text was cut into steps.
    """

    def add_to(self, x: FloatArray, segments: Sequence[Segment]) -> None:
        """Add to x (T, D) what each row makes of its text, and remember the rows in their texts' states.

        The states' ``length`` is advanced by the caller, after all layers.
        """
        ...

    def rehearse(self, x: FloatArray, segment: Segment) -> None:
        """As ``add_to`` for the one row of x (1, D), which ``add_to`` will get again: the state must be as
        good for that as if nothing had happened.
        """
        ...


@dataclass(frozen=True, slots=True)
class MixerParts:
    """What the mixer of one layer is made from."""

    spec: Any  # of the mixer's own kind
    weights: DenseWeights
    layer: int  # number in the model; names of its tensors begin with ``layers.{layer}``
    place: int  # number in ``SequenceState.layers``
    eps: float
    rotation: Rotation | None  # of ``spec.rope``; the same object for equal ones
    distance_bias: DistanceBias | None
    has_post_norm: bool = False  # what it adds passes the norm ``mixer_post_norm``
    branch_scale: float = 1.0  # and then is multiplied by this

    @property
    def norm(self) -> FloatArray:
        """(D,), applied to what the mixer gets; there is one."""
        return self.weights.vector(f"layers.{self.layer}.attention_norm.weight")

    @property
    def optional_norm(self) -> FloatArray | None:
        """As ``norm``, or None in a layer without norms before its parts."""
        return self.weights.optional_vector(f"layers.{self.layer}.attention_norm.weight")

    @property
    def post_norm(self) -> FloatArray | None:
        """(D,), applied to what it adds, if anything is."""
        if not self.has_post_norm:
            return None
        return self.weights.vector(f"layers.{self.layer}.mixer_post_norm.weight")
