"""Where the experts of a model lie in its checkpoint, by what transformers itself does to load them.

transformers renames tensors, stacks, joins, transposes and interleaves them (its weight conversions). Here
the same operations are run on small tensors whose entries say where they come from: what arrives at an
expert's matrix tells the stored tensor, the rows and the orientation. So no table of ours repeats theirs.

Letters: E experts, D width, F expert width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from edgemoe.checkpoint import CheckpointSource, SourceRef, TensorInfo
from edgemoe.convert import ExpertTensors
from edgemoe.errors import MissingTensorError, UnsupportedModelError
from edgemoe.integrations.transformers.layouts import FoundExperts
from edgemoe.source_ref import Rows, Step, TakeColumns, Transposed
from edgemoe.store.expert_modules import ExpertModule, ExpertModules

# Of an entry's number: column, row, entry of the first axis, tensor.
_BITS = 17
_MASK = (1 << _BITS) - 1
_ENTRY_BITS = 11
_MXFP4 = "_blocks"
_NUM_LANDMARK_VALUES = 8
Codes = NDArray[np.int64]


@dataclass
class _Group:
    """The stored tensors that become one parameter, or the first of several; by pattern where converted."""

    converter: WeightConverter | None
    names: dict[str, list[str]] = field(default_factory=dict)


def find_tensors(model: Any, experts: list[FoundExperts], source: CheckpointSource) -> ExpertTensors:
    """Where the matrices of these experts lie in a checkpoint of the model.

    Raises:
        MissingTensorError: some are not there.
        UnsupportedModelError: they are stored in a way that cannot be read in parts.
    """
    stored = source.tensors()
    groups, trunk = _group(model, stored)
    matrices: dict[tuple[int, int, str], SourceRef] = {}
    biases: dict[tuple[int, int, str], SourceRef] = {}
    modules = []
    codes: dict[str, torch.Tensor] = {}
    tracer = _Tracer(model, stored)
    for layer, found in enumerate(experts):
        tracer.scale = _scale(found.description)
        for name in found.parameter_names:
            if name in codes:
                continue
            if name not in groups:
                raise MissingTensorError(f"the checkpoint has no tensor that becomes {name}")
            codes.update(tracer.trace(name, groups[name], found))
        lacking = [name for name in found.parameter_names if name not in codes]
        if lacking:
            raise MissingTensorError(f"the checkpoint has no tensor that becomes {lacking[0]}")
        own = {name.removeprefix(f"{found.path}."): codes.pop(name) for name in found.parameter_names}
        for what, traced in found.layout.matrices(found.module, own).items():
            projection, is_bias = what.removesuffix("_bias"), what.endswith("_bias")
            if len(traced) < found.description.num_experts:
                raise MissingTensorError(
                    f"the checkpoint has {len(traced)} of the {found.description.num_experts} experts at"
                    f" {found.path}; fetch the model again"
                )
            for expert in range(found.description.num_experts):
                place = tracer.locate(traced[expert].numpy(), f"{found.path}, expert {expert}")
                (biases if is_bias else matrices)[layer, expert, projection] = place
        modules.append(_with_landmark(found, trunk, source))
    architecture = type(model).__name__
    described = ExpertModules(model.config.model_type, architecture, tuple(modules))
    return ExpertTensors(described, matrices, biases)


def _group(model: Any, stored: Mapping[str, TensorInfo]) -> tuple[dict[str, _Group], dict[str, str]]:
    """Stored tensors by the parameter that they become, and of plain ones the stored name by that."""
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    state, prefix = model.state_dict(), model.base_model_prefix
    groups: dict[str, _Group] = {}
    trunk: dict[str, str] = {}
    for name in sorted(stored, key=dot_natural_key):
        plain = name.removesuffix(_MXFP4) if _is_mxfp4(name, stored[name]) else name
        target, pattern = rename_source_key(plain, renamings, converters, prefix, state)
        if target not in state and plain in state:
            target, pattern = rename_source_key(plain, [], [], prefix, state)
        if target not in state:
            continue
        group = groups.setdefault(target, _Group(None if pattern is None else by_pattern[pattern]))
        group.names.setdefault(pattern or name, []).append(name)
        if pattern is None:
            trunk[target] = name
    return groups, trunk


def _is_mxfp4(name: str, info: TensorInfo) -> bool:
    """Whether a tensor has the name that MXFP4 adds to a parameter's."""
    return info.exact_format is not None and name.endswith(_MXFP4)


def _scale(module: ExpertModule) -> int:
    """How many rows or columns one of a traced tensor stands for: two or more are left of each size."""
    unit = math.gcd(module.width, module.expert_width)
    return unit // 2 if unit % 2 == 0 else 1


class _Tracer:
    """Follows stored tensors through conversions, each size divided by ``scale``."""

    def __init__(self, model: Any, stored: Mapping[str, TensorInfo]) -> None:
        self._model = model
        self._stored = stored
        self._names: list[str] = []
        self._has_entries: list[bool] = []
        self.scale = 1

    def trace(self, parameter: str, group: _Group, found: FoundExperts) -> dict[str, torch.Tensor]:
        """Where the entries of a parameter come from, and of others that are made together with it."""
        if group.converter is None:
            (name,) = next(iter(group.names.values()))
            traced = self._numbered(name, parameter)
            return {parameter: traced.transpose(1, 2) if self._is_turned(name, found) else traced}
        converter: Any = deepcopy(group.converter)
        for pattern, names in group.names.items():
            for name in names:
                converter.add_tensor(parameter, name, pattern, self._numbered(name, parameter))
        scaled = _Scaled(self._model, self.scale)
        try:
            made = converter.convert(parameter, model=scaled, config=self._model.config)
        except RuntimeError as error:  # of torch, where lists differ in length or matrices in shape
            raise MissingTensorError(
                f"the tensors that become {parameter} do not fit each other; fetch the model again"
            ) from error
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}

    def locate(self, codes: Codes, where: str) -> SourceRef:
        """The part of a stored tensor that a matrix (rows, columns) or a vector consists of.

        Raises:
            UnsupportedModelError: it is not one part of one tensor.
        """
        number = codes >> (2 * _BITS + _ENTRY_BITS)
        entry = (codes >> (2 * _BITS)) & ((1 << _ENTRY_BITS) - 1)
        row, col = (codes >> _BITS) & _MASK, codes & _MASK
        if (number != number.flat[0]).any() or (entry != entry.flat[0]).any():
            raise _mixed(where)
        index = int(number.flat[0])
        name = self._names[index]
        ref = SourceRef(name, int(entry.flat[0]) if self._has_entries[index] else None)
        shape = self._stored[name].shape[1:] if self._has_entries[index] else self._stored[name].shape
        if codes.ndim == 1:
            return replace(ref, steps=self._vector_steps(row, col, shape, where))
        is_transposed = bool((row != row[:, :1]).any())
        if is_transposed:
            row, col = row.T, col.T
        if (row != row[:, :1]).any() or (col != col[:1]).any():
            raise _mixed(where)
        rows, cols = self._range(row[:, 0], where), self._range(col[0], where)
        steps: list[Step] = [] if rows == Rows(0, shape[0]) else [rows]
        if is_transposed:
            steps.append(Transposed())
            steps += [] if cols == Rows(0, shape[1]) else [cols]
        elif cols != Rows(0, shape[1]):
            steps.append(TakeColumns(np.arange(cols.start, cols.stop, cols.stride)))
        return replace(ref, steps=tuple(steps))

    def _vector_steps(self, row: Codes, col: Codes, shape: tuple[int, ...], where: str) -> tuple[Step, ...]:
        places = col if (row == row[0]).all() and len(shape) > 1 else row
        taken = self._range(places, where)
        return () if taken == Rows(0, shape[0]) else (taken,)

    def _range(self, places: Codes, where: str) -> Rows:
        """Real rows or columns, from those of a traced tensor."""
        start, stride = int(places[0]), int(places[1] - places[0])
        if stride < 1 or (np.diff(places) != stride).any():
            raise _mixed(where)
        count = len(places) * self.scale
        first = start * self.scale if stride == 1 else start
        return Rows(first, first + stride * (count - 1) + 1 if stride > 1 else first + count, stride)

    def _numbered(self, name: str, parameter: str) -> torch.Tensor:
        """A tensor in the place of a stored one; its entries say where they are."""
        shape = self._stored[name].shape
        own = self._model.get_parameter(parameter).shape
        # A tensor of all experts has them along its first axis.
        is_stack = len(own) == 3 or parameter.endswith("_bias")
        has_entries = is_stack and len(shape) == len(own) and shape[0] == own[0]
        sizes = [size if has_entries and axis == 0 else size // self.scale for axis, size in enumerate(shape)]
        if any(
            size * self.scale != whole
            for size, whole in zip(sizes[has_entries:], shape[has_entries:], strict=True)
        ):
            raise UnsupportedModelError(f"tensor {name} has shape {shape}, which is no part of an expert")
        self._names.append(name)
        self._has_entries.append(has_entries)
        number = torch.tensor(len(self._names) - 1) << (2 * _BITS + _ENTRY_BITS)
        if has_entries:
            number = number + (torch.arange(sizes.pop(0)) << (2 * _BITS)).view(-1, *[1] * len(sizes))
        if len(sizes) == 1:
            return number + (torch.arange(sizes[0]) << _BITS)
        return number + (torch.arange(sizes[0]) << _BITS)[:, None] + torch.arange(sizes[1])

    def _is_turned(self, name: str, found: FoundExperts) -> bool:
        """MXFP4 is stored as (E, outputs, inputs), whatever the parameter's orientation."""
        return _is_mxfp4(name, self._stored[name]) and getattr(found.module, "is_transposed", False)


class _Scaled:
    """A model as conversions ask for the shapes of its parameters, in the sizes of traced tensors."""

    def __init__(self, model: Any, scale: int) -> None:
        self._model = model
        self._scale = scale

    def get_parameter(self, name: str) -> torch.Tensor:
        num_experts, *sizes = self._model.get_parameter(name).shape
        return torch.empty(num_experts, *(size // self._scale for size in sizes), device="meta")


def _mixed(where: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{where}: is stored in pieces that cannot be read one expert at a time")


def _with_landmark(found: FoundExperts, trunk: Mapping[str, str], source: CheckpointSource) -> ExpertModule:
    """The module with the first numbers of a tensor beside its experts, its router's as a rule."""
    parent = found.path.rpartition(".")[0]
    own = set(found.parameter_names)
    beside = [name for name in trunk if name.startswith(f"{parent}.") and name not in own]
    shapes = {name: source.tensors()[trunk[name]].shape for name in beside}
    num_experts = found.description.num_experts
    floats = [name for name in beside if source.tensors()[trunk[name]].dtype.startswith(("F", "BF"))]
    routers = [name for name in floats if len(shapes[name]) == 2 and shapes[name][0] >= num_experts]
    name = next(iter(sorted(routers, key=lambda name: math.prod(shapes[name]))), None)
    if name is None:
        return found.description
    values = source.read(SourceRef(trunk[name], rows=(0, 1))).reshape(-1)[:_NUM_LANDMARK_VALUES]
    return replace(
        found.description,
        landmark=name.removeprefix(f"{parent}."),
        landmark_values=tuple(values.tolist()),
    )
