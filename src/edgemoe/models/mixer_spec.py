"""What token mixers have in common before anything is loaded: the protocol of their specs, rotations and
tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from edgemoe.models.layer_state import LayerState, StateSize

if TYPE_CHECKING:
    from edgemoe.models.mixers.mixer import MixerParts, TokenMixer

ROW_MULTIPLE = 32  # what the packed formats ask of every row length


def filled(size: int) -> int:
    """A row length rounded up to one that the packed formats take."""
    return -(-size // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclass(frozen=True)
class TensorSpec:
    """A non-expert tensor. "precise" ones (norms, biases, routers) stay in f32.

    ``source_shape`` is that of the checkpoint where it differs; the values have the same order. ``unfilled``:
    the shape there where it is smaller; zeros behind each axis fill it up.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["matrix", "precise"]
    source_shape: tuple[int, ...] | None = None
    unfilled: tuple[int, ...] | None = None


def filled_tensor(
    name: str, stored: tuple[int, ...], shape: tuple[int, ...], kind: Literal["matrix", "precise"] = "matrix"
) -> TensorSpec:
    """A tensor that has room for more than a checkpoint's, of the shape ``stored``."""
    return TensorSpec(name, shape, kind, unfilled=None if stored == shape else stored)


def filled_up(given: Iterable[TensorSpec], whole: Iterable[TensorSpec]) -> Iterator[TensorSpec]:
    """Tensors of a width that packed rows take, ``whole``, filled up from those of a checkpoint's width."""
    for stored, room in zip(given, whole, strict=True):
        shape = stored.unfilled or stored.source_shape or stored.shape
        is_full = shape == (room.source_shape or room.shape)
        yield room if is_full else replace(room, unfilled=shape)


def filled_rows(name: str, num_rows: int, num_cols: int) -> TensorSpec:
    """A matrix whose rows are filled up to a length that the packed formats take."""
    return filled_tensor(name, (num_rows, num_cols), (num_rows, filled(num_cols)))


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding: ``kind`` is default, linear, dynamic, llama3, yarn, proportional or divided.

    The last divides the frequency of each pair by one of ``divisors`` (Phi-3's within its trained context).
    """

    kind: str
    theta: float
    rotary_dim: int
    trained_context: int
    scaling: Mapping[str, float] = field(default_factory=dict)
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True)
class PositionBiasSpec:
    """T5's relative positions (arXiv 1910.10683): a learnt value per head and bucket of distances is added to
    the scores. Encoder and decoder have a table each, which all of their layers share.
    """

    num_buckets: int
    max_distance: int


class MixerSpec(Protocol):
    """What a layer's token mixer is made of, and what that takes; see models/mixers."""

    def tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """Its tensors; their names begin with ``prefix``, the layer's."""
        ...

    def row_lengths(self) -> dict[str, int]:
        """Row lengths of its packed matrices beside the model's width, by their names in a configuration."""
        ...

    def new_state(self, size: StateSize) -> LayerState:
        """What it keeps of a new text."""
        ...

    def state_num_bytes(self, size: StateSize) -> int:
        """What ``new_state`` takes; of a text of ``size.num_used`` tokens, if that is given."""
        ...

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """Most bytes that a step of so many rows takes at one time besides the residual stream, as compiled
        code says; a row sees up to ``num_keys`` tokens.
        """
        ...

    def build(self, parts: MixerParts) -> TokenMixer:
        """The mixer itself, of a layer with these parts."""
        ...
