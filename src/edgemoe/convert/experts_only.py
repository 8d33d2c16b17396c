"""The experts of a checkpoint as a store of their own, for a model that another program runs.

Nothing is known here of model families: which tensors are experts is told by ``ExpertTensors``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from edgemoe import native
from edgemoe.checkpoint import CheckpointSource, SourceRef
from edgemoe.convert.conversion import refuse_unknown_experts
from edgemoe.convert.packing import Packer, holds_exactly
from edgemoe.convert.soundness import refuse_not_finite
from edgemoe.convert.store_manifest import build_manifest
from edgemoe.errors import CheckpointError
from edgemoe.native import ByteArray
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import (
    VECTOR_FORMAT,
    ExpertKey,
    Manifest,
    StoreLayout,
    StoreWriter,
    expert_name,
    plan_layout,
)
from edgemoe.store.expert_modules import MODULES_FILE, ExpertModule, ExpertModules, bias_name


@dataclass(frozen=True)
class ExpertTensors:
    """Where the experts of a model lie in its checkpoint.

    ``matrices`` and ``biases`` by layer, expert and projection.
    """

    modules: ExpertModules
    matrices: Mapping[tuple[int, int, str], SourceRef]
    biases: Mapping[tuple[int, int, str], SourceRef]


class ExpertConversion:
    """As ``Conversion``, of experts alone. ``keeps_exact``: blocks that a format holds stay as they are."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, source: CheckpointSource, tensors: ExpertTensors, plan: BitPlan, keeps_exact: bool
    ) -> None:
        self._source = source
        self._plan = plan
        self._tensors = tensors
        self._modules = tensors.modules.modules
        self._stored = source.tensors()
        self._check_shapes()
        self._formats = {key: self._formats_of(key, keeps_exact) for key in self._keys()}
        refuse_unknown_experts(self._plan, self._formats)
        self._packer = Packer(source, self._stored)
        for ref, format in self._matrices():
            self._packer.check_exact(ref, format)
        self._dense = {
            bias_name(layer, projection): (module.num_experts * module.shape(projection)[0],)
            for layer, module in enumerate(self._modules)
            if module.has_bias
            for projection in module.projections
        }
        self.layout: StoreLayout = plan_layout(
            {name: (VECTOR_FORMAT, shape) for name, shape in self._dense.items()},
            ((key, formats, self._module(key).expert_width) for key, formats in self._formats.items()),
            {layer: module.width for layer, module in enumerate(self._modules)},
        )

    def identity(self) -> str:
        """Equal for two runs that would write the same bytes, wherever the checkpoint lies."""
        digest = hashlib.sha256()
        for part in (
            version("edgemoe"),
            f"experts only, layout {native.LAYOUT_VERSION}",
            json.dumps(self._source.config(), sort_keys=True),
            self._tensors.modules.to_json(),
            json.dumps(self._plan.to_json(), sort_keys=True),
            *(f"{name} {info}" for name, info in sorted(self._stored.items())),
            *(f"{key} {formats}" for key, formats in self._formats.items()),
        ):
            digest.update(part.encode() + b"\n")
        for layer in range(len(self._modules)):
            first = self._tensors.matrices[layer, 0, "down"].slice_rows(0, 1)
            digest.update(self._source.read(first).tobytes())
        return digest.hexdigest()

    def tensors(self) -> Iterator[tuple[str, int, Iterator[ByteArray]]]:
        """Every tensor in the order of the files: name, stored bytes, and its data in chunks."""
        for layer, module in enumerate(self._modules):
            for projection in module.projections if module.has_bias else ():
                name = bias_name(layer, projection)
                yield name, self.layout.dense[name].num_bytes, self._bias_chunks(layer, projection)
        for key, place in self.layout.experts.items():
            yield expert_name(key), place.num_bytes, self._expert_chunks(key)

    def side_files(self) -> dict[str, bytes]:
        """The configuration, and what the experts belong to."""
        config = json.dumps(self._source.config(), indent=2).encode()
        return {"config.json": config, MODULES_FILE: self._tensors.modules.to_json().encode()}

    def manifest(self, writer: StoreWriter, side_files: dict[str, bytes]) -> Manifest:
        """The manifest, once everything is written."""
        dense = {name: (VECTOR_FORMAT, shape) for name, shape in self._dense.items()}
        return build_manifest(self.layout, dense, self._formats, self._plan, writer, side_files)

    @property
    def has_inputs(self) -> bool:
        """Whether experts are rounded for what they are fed on a text: never here."""
        return False

    @property
    def passed_over(self) -> dict[str, int]:
        """Nothing: all else is the other program's."""
        return {}

    def expert_bits_per_weight(self) -> float:
        """Stored bits per expert weight, scales and padding included."""
        num_bytes = sum(place.num_bytes for place in self.layout.experts.values())
        sizes = (len(m.projections) * m.num_experts * m.width * m.expert_width for m in self._modules)
        return 8 * num_bytes / sum(sizes)

    def num_matrices(self) -> dict[str, int]:
        """How many matrices become what, by "stored type → format"."""
        return dict(Counter(self._packer.change(ref, format) for ref, format in self._matrices()))

    def rounding(self) -> dict[str, float]:
        """As ``Packer.rounding``."""
        return self._packer.rounding()

    def _keys(self) -> Iterator[ExpertKey]:
        for layer, module in enumerate(self._modules):
            yield from ((layer, expert) for expert in range(module.num_experts))

    def _module(self, key: ExpertKey) -> ExpertModule:
        return self._modules[key[0]]

    def _matrices(self) -> Iterator[tuple[SourceRef, str]]:
        for key, formats in self._formats.items():
            for projection in self._module(key).projections:
                yield self._tensors.matrices[key[0], key[1], projection], getattr(formats, projection)

    def _formats_of(self, key: ExpertKey, keeps_exact: bool) -> ExpertFormats:
        projections = self._module(key).projections
        planned = self._plan.formats_of(*key).of(projections)
        if not keeps_exact:
            return planned
        found = dict(zip(projections, planned.to_json(), strict=True))
        for projection in projections:
            ref = self._tensors.matrices[key[0], key[1], projection]
            info = self._stored[ref.name]
            if info.exact_format is not None and holds_exactly(info.exact_format, ref, info):
                found[projection] = info.exact_format
        return ExpertFormats.from_json(list(found.values()))

    def _check_shapes(self) -> None:
        """Every part is there, in the shape that the model has it in, and in rows that formats can have."""
        for module in self._modules:
            for name, size in (("hidden", module.width), ("expert", module.expert_width)):
                if size % native.BLOCK:
                    raise CheckpointError(
                        f"{module.path}: has a {name} size of {size}; it must be a multiple of {native.BLOCK}"
                    )
        for (layer, expert, projection), ref in self._tensors.matrices.items():
            self._check(ref, self._modules[layer].shape(projection), layer, expert)
        for (layer, expert, projection), ref in self._tensors.biases.items():
            self._check(ref, self._modules[layer].shape(projection)[:1], layer, expert)

    def _check(self, ref: SourceRef, expected: tuple[int, ...], layer: int, expert: int) -> None:
        try:
            found = ref.shape(self._stored[ref.name].shape)
        except ValueError as error:
            raise CheckpointError(f"tensor {ref.name} {error}") from error
        if found != expected:
            where = f"{self._modules[layer].path}, expert {expert}"
            raise CheckpointError(f"tensor {ref.name} has shape {found}; {where} has {expected}")

    def _bias_chunks(self, layer: int, projection: str) -> Iterator[ByteArray]:
        for expert in range(self._modules[layer].num_experts):
            ref = self._tensors.biases[layer, expert, projection]
            values = np.ascontiguousarray(self._source.read(ref)).reshape(-1)
            refuse_not_finite(ref, values)
            yield values.view(np.uint8)

    def _expert_chunks(self, key: ExpertKey) -> Iterator[ByteArray]:
        module, formats = self._module(key), self._formats[key]
        for projection in module.projections:
            ref, format = self._tensors.matrices[key[0], key[1], projection], getattr(formats, projection)
            yield from self._packer.chunks(ref, *module.shape(projection), format)
