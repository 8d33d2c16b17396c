"""Where each tensor of a model lies in a checkpoint: names are matched so that nothing is left over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edgemoe.errors import CheckpointError, MissingTensorError, UnusedTensorError
from edgemoe.models.families.names import Naming
from edgemoe.models.mtp import MtpSpec
from edgemoe.models.spec import ModelSpec, TensorSpec
from edgemoe.source_ref import Filled, Reshaped, Shape, SourceRef

ExpertPart = tuple[int, int, str]


@dataclass(frozen=True)
class TensorSources:
    """Where to read every tensor of a model: by canonical name, and by (layer, expert, projection).

    ``passed_over``: parts of the checkpoint that are not run, with the number of their tensors.
    """

    dense: Mapping[str, SourceRef]
    experts: Mapping[ExpertPart, SourceRef]
    passed_over: Mapping[str, int]


def match_sources(spec: ModelSpec, naming: Naming, shapes: Mapping[str, Shape]) -> TensorSources:
    """Match the spec's tensors to stored names and shapes.

    Raises:
        MissingTensorError: a tensor the spec needs is not there.
        UnusedTensorError: a stored tensor is not needed, so the model is not what its configuration says.
        CheckpointError: a tensor has another shape than the configuration implies.
    """
    matcher = _Matcher(shapes)
    dense, experts = _match(matcher, spec, naming, spec.dense_tensors())
    # A tensor without entries may be left over: nothing of it is lost.
    left = {name for name, shape in shapes.items() if 0 not in shape} - matcher.used
    return TensorSources(dense, experts, _passed_over(spec, naming, left))


def match_mtp(mtp: MtpSpec, naming: Naming, shapes: Mapping[str, Shape]) -> TensorSources:
    """As ``match_sources``, of the tensors of a layer for further tokens alone."""
    dense, experts = _match(_Matcher(shapes), mtp.model, naming, mtp.dense_tensors())
    return TensorSources(dense, experts, {})


def _match(
    matcher: _Matcher, spec: ModelSpec, naming: Naming, tensors: Iterable[TensorSpec]
) -> tuple[dict[str, SourceRef], dict[ExpertPart, SourceRef]]:
    dense = {
        t.name: matcher.match(
            t.name, naming.dense(spec, t.name), t.unfilled or t.source_shape or t.shape, _room(t)
        )
        for t in tensors
    }
    experts = {
        (layer, expert, projection): matcher.match(
            f"layers.{layer}.experts.{expert}.{projection}",
            naming.expert(spec, layer, expert, projection),
            shape,
            spec.expert_shapes(layer)[projection],
            spec.moe(layer).router.num_experts,
        )
        for layer, expert in spec.experts()
        for projection, shape in spec.stored_expert_shapes(layer).items()
    }
    return dense, experts


def _passed_over(spec: ModelSpec, naming: Naming, names: set[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    left = []
    for name in sorted(names):
        what = naming.passed_over(spec, name)
        if what is None:
            left.append(name)
        elif what:
            counts[what] += 1
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise UnusedTensorError(
            f"tensor {left[0]}{more} belongs to nothing that {spec.family} has by this config.json;"
            " running without it could give wrong text"
        )
    return dict(counts)


def _room(tensor: TensorSpec) -> Shape:
    """The shape that values have when they have been read."""
    return tensor.source_shape or tensor.shape


class _Matcher:
    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes
        self.used: set[str] = set()

    def match(
        self,
        canonical: str,
        candidates: Iterable[SourceRef],
        shape: Shape,
        room: Shape,
        num_entries: int = 0,
    ) -> SourceRef:
        """The first candidate that is there and has the shape, filled up to the ``room``; a stack
        must have ``num_entries`` entries.
        """
        usual, misfit = None, None
        for ref in candidates:
            usual = usual or ref.name
            if ref.name not in self._shapes:
                continue
            try:
                found = self._checked(ref, shape, num_entries)
                return found if room == shape else replace(found, steps=(*found.steps, Filled(room)))
            except CheckpointError as error:
                misfit = misfit or error
        if misfit is not None:
            raise type(misfit)(f"{misfit}{self._advice(canonical, usual, shape)}") from misfit
        raise MissingTensorError(f"the checkpoint has no tensor {usual or canonical}; is a shard missing?")

    def _advice(self, canonical: str, stored: str | None, shape: Shape) -> str:
        """What to do where an embedding has other rows: programs that add tokens forget the key."""
        found = self._shapes.get(stored or "", ())
        if canonical != "embed.weight" or len(found) != 2 or found[1:] != shape[1:]:
            return ""
        return f"; if training added tokens, set vocab_size to {found[0]} there"

    def _checked(self, ref: SourceRef, shape: Shape, num_entries: int) -> SourceRef:
        stored = self._shapes[ref.name]
        try:
            found = ref.shape(stored)
        except ValueError as error:
            raise CheckpointError(f"tensor {ref.name} {error}; config.json implies {shape}") from error
        is_alike = tuple(n for n in found if n != 1) == tuple(n for n in shape if n != 1)
        if not is_alike or (ref.index is not None and stored[0] != num_entries):
            raise CheckpointError(f"tensor {ref.name} has shape {stored}, config.json implies {shape}")
        self.used.add(ref.name)
        # Axes of length 1 are written by some and left out by others.
        if found != shape and math.prod(shape) > 0:
            return SourceRef(ref.name, ref.index, ref.rows, (*ref.steps, Reshaped(shape)))
        return ref
