"""One checkpoint with one plan: what to write, in which order, and how it is packed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from importlib.metadata import version

import numpy as np

from edgemoe import native
from edgemoe.checkpoint import CheckpointSource, SourceRef
from edgemoe.convert.examine import examine, side_files, text_notes
from edgemoe.convert.input_grams import InputGrams
from edgemoe.convert.packing import Packer
from edgemoe.convert.soundness import refuse_not_finite
from edgemoe.convert.store_manifest import build_manifest, split_mtp
from edgemoe.errors import CheckpointError
from edgemoe.models import ModelSpec, MtpSpec, TensorSources, TensorSpec, find_mtp
from edgemoe.models.families.names import MTP
from edgemoe.native import ByteArray
from edgemoe.quant import BitPlan, ExpertFormats, ExpertInputs
from edgemoe.store import (
    MTP_PREFIX,
    VECTOR_FORMAT,
    ExpertKey,
    Manifest,
    StoreLayout,
    StoreWriter,
    expert_name,
    plan_layout,
)

PRECISE_FORMAT = "f32"
MTP_NOTE = "a layer that predicts further tokens is kept, for --draft mtp"


class Conversion:
    """One checkpoint with one plan: what to write, in which order."""

    def __init__(
        self,
        source: CheckpointSource,
        plan: BitPlan,
        inputs: ExpertInputs | None = None,
        *,
        keeps_mtp: bool = True,
    ) -> None:
        """``keeps_mtp``: a layer that predicts further tokens is stored too, where we can draft with it."""
        self._source = source
        self._plan = plan
        self._inputs = inputs
        examined = examine(source)
        self._config, self._stored = examined.config, examined.stored
        self.spec: ModelSpec = examined.spec
        self._sources: TensorSources = examined.sources
        self._mtp: MtpSpec | None = None
        self._side_files = side_files(source, self._config)
        # Told before the work.
        text = text_notes(source, self._side_files, self._config, self.spec.vocab_size)
        self.notes: tuple[str, ...] = (*examined.notes, *text)
        self._dense = {t.name: (self._dense_format(t), t.shape) for t in self.spec.dense_tensors()}
        self._formats = {
            key: plan.formats_of(*key).of(self.spec.moe(key[0]).expert.projections)
            for key in self.spec.experts()
        }
        self._check_overrides()
        if keeps_mtp:
            self._add_mtp()
        self._grams = None if inputs is None else InputGrams(source, self.spec, self._sources, inputs)
        self._matrices = list(self._find_matrices())
        self._packer = Packer(source, self._stored)
        self._check_exact_formats()
        self.layout: StoreLayout = plan_layout(
            self._dense,
            ((key, formats, self._expert_width(key)) for key, formats in self._formats.items()),
            {layer: self._outer_width(layer) for layer, _ in self._formats},
        )

    def _add_mtp(self) -> None:
        """Add the layer for further tokens, if the checkpoint has one, like one more layer of the model."""
        found = find_mtp(self.spec, {name: info.shape for name, info in self._stored.items()})
        if found is None:
            return
        self._mtp, sources = found
        layer = len(self.spec.layers)
        moe = self._mtp.model.moe(0)
        self._dense |= {
            MTP_PREFIX + t.name: (self._dense_format(t), t.shape) for t in self._mtp.dense_tensors()
        }
        self._formats |= {
            (layer, e): self._plan.formats_of(layer, e).of(moe.expert.projections)
            for e in range(moe.router.num_experts)
        }
        dense = {MTP_PREFIX + name: ref for name, ref in sources.dense.items()}
        experts = {(layer, e, p): ref for (_, e, p), ref in sources.experts.items()}
        left = {what: n for what, n in self._sources.passed_over.items() if what != MTP}
        self._sources = TensorSources(
            {**self._sources.dense, **dense}, {**self._sources.experts, **experts}, left
        )
        self.notes = (MTP_NOTE, *(note for note in self.notes if MTP not in note))

    def _model(self, layer: int) -> tuple[ModelSpec, int]:
        """The model that a layer of experts is of, and its number there."""
        if self._mtp is not None and layer == len(self.spec.layers):
            return self._mtp.model, 0
        return self.spec, layer

    def identity(self) -> str:
        """Equal for two runs that would write the same bytes, wherever the checkpoint lies."""
        digest = hashlib.sha256()
        for part in (
            version("edgemoe"),
            f"layout {native.LAYOUT_VERSION}",
            json.dumps(self._config, sort_keys=True),
            json.dumps(self._plan.to_json(), sort_keys=True),
            *(("with a layer for further tokens",) if self._mtp is not None else ()),
            *(() if self._inputs is None else (f"inputs {self._inputs.identity}",)),
            *(f"{name} {info}" for name, info in sorted(self._stored.items())),
        ):
            digest.update(part.encode() + b"\n")
        # Two fine-tunes of one model differ in nothing but values. Their first rows tell them apart.
        for name in self._dense:
            digest.update(self._source.read(self._sources.dense[name].slice_rows(0, 1)).tobytes())
        for layer in self.spec.moe_layers:
            digest.update(
                self._source.read(self._sources.experts[layer, 0, "down"].slice_rows(0, 1)).tobytes()
            )
        return digest.hexdigest()

    def tensors(self) -> Iterator[tuple[str, int, Iterator[ByteArray]]]:
        """Every tensor in the order of the files: name, stored bytes, and its data in chunks."""
        for name, place in self.layout.dense.items():
            yield name, place.num_bytes, self._dense_chunks(name)
        for key, place in self.layout.experts.items():
            yield expert_name(key), place.num_bytes, self._expert_chunks(key)

    def side_files(self) -> dict[str, bytes]:
        """Configuration and tokenizer files by name."""
        return dict(self._side_files)

    def manifest(self, writer: StoreWriter, side_files: dict[str, bytes]) -> Manifest:
        """The manifest, once everything is written."""
        return self.parted(
            build_manifest(self.layout, self._dense, self._formats, self._plan, writer, side_files)
        )

    def parted(self, manifest: Manifest) -> Manifest:
        """A manifest of all tensors, with those of a layer for further tokens apart."""
        return manifest if self._mtp is None else split_mtp(manifest, len(self.spec.layers))

    @property
    def has_inputs(self) -> bool:
        """Whether experts are rounded for what they are fed on a text."""
        return self._inputs is not None

    @property
    def passed_over(self) -> dict[str, int]:
        """Parts of the checkpoint that are not run, with the number of their tensors."""
        return dict(self._sources.passed_over)

    def expert_bits_per_weight(self) -> float:
        """Stored bits per expert weight, scales and padding included."""
        num_bytes = sum(place.num_bytes for place in self.layout.experts.values())
        models = [self._model(layer) for layer, _ in self._formats]
        num_weights = sum(model.num_expert_weights(layer) for model, layer in models)
        return 8 * num_bytes / num_weights

    def _dense_format(self, tensor: TensorSpec) -> str:
        if len(tensor.shape) == 1:
            return VECTOR_FORMAT
        if tensor.kind != "matrix":
            return PRECISE_FORMAT
        return self._plan.dense_overrides.get(tensor.name, self._plan.dense)

    def _outer_width(self, layer: int) -> int:
        model, own = self._model(layer)
        return model.expert_sizes(own)[0]

    def _expert_width(self, key: ExpertKey) -> int:
        model, layer = self._model(key[0])
        return model.expert_sizes(layer)[1]

    def _check_overrides(self) -> None:
        refuse_unknown_experts(self._plan, self._formats)
        strange = sorted(set(self._plan.dense_overrides) - set(self._dense))
        if strange:
            raise CheckpointError(f"the plan speaks of a matrix {strange[0]}, which is not in the model")

    def _find_matrices(self) -> Iterator[tuple[SourceRef, str]]:
        """Every matrix, of experts too, and the format that the plan gives it."""
        for name, (format, shape) in self._dense.items():
            if len(shape) > 1:
                yield self._sources.dense[name], format
        for (layer, expert), formats in self._formats.items():
            model, own = self._model(layer)
            for projection in model.moe(own).expert.projections:
                yield self._sources.experts[layer, expert, projection], getattr(formats, projection)

    def _check_exact_formats(self) -> None:
        """A format that holds another engine's blocks is made of such blocks alone."""
        for ref, format in self._matrices:
            self._packer.check_exact(ref, format)

    def num_matrices(self) -> dict[str, int]:
        """How many matrices become what, by "stored type → format"."""
        return dict(Counter(self._packer.change(ref, format) for ref, format in self._matrices))

    def _dense_chunks(self, name: str) -> Iterator[ByteArray]:
        format, shape = self._dense[name]
        ref = self._sources.dense[name]
        if len(shape) == 1:
            values = np.ascontiguousarray(self._source.read(ref)).reshape(-1)
            refuse_not_finite(ref, values)
            yield values.view(np.uint8)
        else:
            yield from self._packer.chunks(ref, shape[0], shape[1], format)

    def _expert_chunks(self, key: ExpertKey) -> Iterator[ByteArray]:
        formats: ExpertFormats = self._formats[key]
        model, layer = self._model(key[0])
        # What a layer for further tokens is fed was not recorded.
        grams = self._grams.of(key) if self._grams is not None and model is self.spec else {}
        for projection, (rows, cols) in model.expert_shapes(layer).items():
            ref = self._sources.experts[key[0], key[1], projection]
            format = getattr(formats, projection)
            yield from self._packer.chunks(ref, rows, cols, format, grams.get(projection))

    def rounding(self) -> dict[str, float]:
        """As ``Packer.rounding``."""
        return self._packer.rounding()

    @property
    def squares(self) -> dict[str, list[tuple[float, float]]]:
        """What ``rounding`` is computed of, chunk by chunk."""
        return self._packer.squares

    def add_squares(self, squares: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Take in what another has noted of the parts that it has packed."""
        for change, parts in squares.items():
            self._packer.squares.setdefault(change, []).extend(parts)


def refuse_unknown_experts(plan: BitPlan, known: Container[ExpertKey]) -> None:
    """Raises CheckpointError where a plan speaks of an expert that the model does not have."""
    for layer, expert in sorted(plan.overrides):
        if (layer, expert) not in known:
            raise CheckpointError(
                f"the plan speaks of layer {layer} expert {expert}, which is not in the model"
            )
