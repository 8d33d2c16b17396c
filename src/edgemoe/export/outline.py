"""Which tensors a checkpoint of a model has, and which of the model's own each is made of.

The families' tables of names, which say where the tensors of a checkpoint are read to, backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgemoe.errors import UnsupportedModelError
from edgemoe.export.undo import stored_shape
from edgemoe.models import ModelSpec, family_of
from edgemoe.models.families import FAMILIES, Family, GgufFamily
from edgemoe.models.families.names import Naming
from edgemoe.source_ref import Shape, SourceRef

ExpertPart = tuple[int, int, str]


@dataclass(frozen=True)
class Part:
    """A tensor of the model: its canonical name or its expert's, its shape before it was filled up and after
    that, and where a checkpoint has it.
    """

    of: str | ExpertPart
    shape: Shape
    room: Shape
    ref: SourceRef


@dataclass
class Target:
    """A tensor of the checkpoint. ``entry``: the shape of what parts are of, one of ``num_entries`` of a
    stack.
    """

    name: str
    is_matrix: bool
    num_entries: int = 0  # 0: no stack
    entry: Shape = ()
    parts: list[Part] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """As in a GGUF file, axes of length 1 before the others left out."""
        entry = self.entry[1:] if len(self.entry) == 2 and self.entry[0] == 1 else self.entry
        return (self.num_entries, *self.entry) if self.num_entries else entry


def gguf_family(spec: ModelSpec) -> tuple[Family, GgufFamily]:
    """The family, and how GGUF files hold it.

    Raises:
        UnsupportedModelError: no GGUF file holds it.
    """
    family = family_of(spec)
    gguf = family.gguf if family.gguf_of is None else FAMILIES[family.gguf_of].gguf
    if gguf is None:
        raise UnsupportedModelError(
            f"{family.title} cannot be exported: no GGUF architecture is known for it"
        )
    return family, gguf


def outline(spec: ModelSpec, naming: Naming | None = None) -> list[Target]:
    """All tensors of a checkpoint of this naming, those of a layer's experts behind all others.

    Without ``naming`` it is a GGUF file's.

    Raises:
        UnsupportedModelError: the family has no names in such checkpoints, or not of all its tensors.
    """
    family = family_of(spec)
    targets: dict[str, Target] = {}
    for part, is_matrix in _parts(spec, naming or gguf_family(spec)[1].names):
        target = targets.setdefault(part.ref.name, Target(part.ref.name, is_matrix))
        try:
            entry = stored_shape(part.ref, part.shape)
        except ValueError as error:
            raise UnsupportedModelError(
                f"{family.title} cannot be exported: tensor {part.of}: {error}"
            ) from error
        # Parts of one entry lie one behind the other: the last one tells its size.
        target.entry = max(target.entry, entry)
        target.is_matrix = target.is_matrix and is_matrix
        if part.ref.index is not None:
            target.num_entries = max(target.num_entries, part.ref.index + 1)
        target.parts.append(part)
    return list(targets.values())


def _parts(spec: ModelSpec, naming: Naming) -> Iterator[tuple[Part, bool]]:
    for tensor in spec.dense_tensors():
        ref = next(naming.dense(spec, tensor.name), None)
        if ref is None:
            raise UnsupportedModelError(
                f"{family_of(spec).title} cannot be exported: such files have no name for {tensor.name}"
            )
        is_matrix = tensor.kind == "matrix" and len(tensor.shape) == 2
        room = tensor.source_shape or tensor.shape
        yield Part(tensor.name, tensor.unfilled or room, room, ref), is_matrix
    for layer, expert in spec.experts():
        stored = spec.stored_expert_shapes(layer)
        for projection, room in spec.expert_shapes(layer).items():
            ref = next(naming.expert(spec, layer, expert, projection))
            yield Part((layer, expert, projection), stored[projection], room, ref), True
