"""Integers of 4 or 8 bits packed in words of 32, with scales for groups of inputs, as compressed-tensors
leaves them: outputs are rows of what is stored. ``by_input.py`` has the layouts of GPTQ and AWQ.

Letters: N outputs (rows of the matrix), M inputs (columns), P codes in a word, G groups of inputs.

``weight_packed`` (N, M / P) with the lowest bits first and half of the range added, ``weight_scale`` (N, G),
maybe ``weight_zero_point`` (N / P, G), packed alike, or in older files (N, G), a byte for each, and
``weight_g_idx`` (M), the group of each input. Where one of its entries is -1 it says nothing, and groups are
in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.coded import ReadStored
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import FloatArray

WORD_BITS = 32
BITS = (4, 8)
# What a list of groups is filled with before a quantiser orders its inputs.
_UNSAID = -1


def unpacked(words: NDArray[Any], bits: int, axis: int) -> NDArray[np.int32]:
    """Codes of words, in place of each along an axis, the lowest bits first."""
    shifts = np.arange(0, WORD_BITS, bits, dtype=np.uint32)
    codes = (np.expand_dims(words.view(np.uint32), axis + 1) >> _along(shifts, axis + 1, words.ndim + 1)) & (
        (1 << bits) - 1
    )
    shape = list(words.shape)
    shape[axis] *= len(shifts)
    return np.asarray(codes, np.int32).reshape(shape)


def group_indices(stored: NDArray[Any], num_groups: int, name: str) -> NDArray[np.int64]:
    """The group of each input, as the tensor ``name`` has it.

    Raises:
        CheckpointError: there is no such group.
    """
    groups = np.asarray(stored, np.int64)
    if groups.min() < 0 or groups.max() >= num_groups:
        raise CheckpointError(f"tensor {name} names groups that are not there; fetch the model again")
    return groups


def _along(values: NDArray[Any], axis: int, ndim: int) -> NDArray[Any]:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


@dataclass(frozen=True)
class ByOutput:
    """compressed-tensors': outputs are rows of what is stored."""

    module: str
    info: TensorInfo
    bits: int
    num_groups: int
    has_zeros: bool
    has_group_indices: bool
    has_bytes_for_zeros: bool
    further: tuple[str, ...] = field(default=())  # stored tensors that say what is known

    @property
    def parts(self) -> tuple[str, ...]:
        """See CodedTensor."""
        names = ["weight_packed", "weight_scale", *self.further]
        names += ["weight_zero_point"] * self.has_zeros + ["weight_g_idx"] * self.has_group_indices
        return tuple(f"{self.module}.{name}" for name in names)

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """See CodedTensor."""
        num_cols, half = self.info.shape[1], 1 << (self.bits - 1)
        words = read(f"{self.module}.weight_packed", None, start, stop)
        codes = unpacked(np.ascontiguousarray(words), self.bits, 1)[:, :num_cols] - half
        scales = read(f"{self.module}.weight_scale", None, start, stop).reshape(stop - start, -1)
        groups = np.arange(num_cols) // -(-num_cols // self.num_groups)
        if self.has_group_indices:
            name = f"{self.module}.weight_g_idx"
            indices = read(name, None, 0, num_cols)
            if not np.any(indices == _UNSAID):
                groups = group_indices(indices, self.num_groups, name)
        if self.has_zeros:
            codes = codes - self._zeros(read, start, stop)[:, groups]
        return np.ascontiguousarray(codes * scales[:, groups], np.float32)

    def _zeros(self, read: ReadStored, start: int, stop: int) -> NDArray[np.int32]:
        """What stands for 0, of rows and groups."""
        name = f"{self.module}.weight_zero_point"
        if self.has_bytes_for_zeros:
            return np.asarray(read(name, None, start, stop), np.int32)
        per_word = WORD_BITS // self.bits
        low, high = start // per_word, -(-stop // per_word)
        words = np.ascontiguousarray(read(name, None, low, high))
        codes = unpacked(words, self.bits, 0)[start - low * per_word :][: stop - start]
        return codes - (1 << (self.bits - 1))


def find_packed(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> dict[str, ByOutput]:
    """The matrices of integers that compressed-tensors packs.

    Raises:
        CheckpointError: bits that are not read, or shapes that do not fit.
    """
    found = {}
    widths, group_size = _widths_of(config)
    for name, words in tensors.items():
        if (
            not name.endswith(".weight_packed") or words.dtype == "U8"
        ):  # numbers of 4 bits: nvfp4.py, mxfp4.py
            continue
        module = name.removesuffix(".weight_packed")
        scale = matrix_part(tensors, f"{module}.weight_scale")
        bits = _bits_of(words, scale, widths, group_size)
        num_rows = words.shape[0]
        num_cols = words.shape[1] * (WORD_BITS // bits)
        num_groups = scale.shape[1] if len(scale.shape) == 2 else 1
        if words.dtype != "I32" or scale.shape[0] != num_rows or num_cols % num_groups:
            raise CheckpointError(
                f"tensor {name} has type {words.dtype} and shape {words.shape}, its scales {scale.shape}:"
                " they do not fit"
            )
        optional = {part: f"{module}.{part}" in tensors for part in ("weight_zero_point", "weight_g_idx")}
        has_bytes = _has_bytes(tensors, module, (num_rows, num_groups), bits)
        if optional["weight_g_idx"] and tensors[f"{module}.weight_g_idx"].shape != (num_cols,):
            raise CheckpointError(f"tensor {module}.weight_g_idx does not have a group for each input")
        further = tuple(p for p in ("weight_shape",) if f"{module}.{p}" in tensors)
        num_bytes = words.num_bytes + scale.num_bytes
        info = TensorInfo((num_rows, num_cols), f"packed int{bits}", num_bytes)
        found[f"{module}.weight"] = ByOutput(
            module,
            info,
            bits,
            num_groups,
            optional["weight_zero_point"],
            optional["weight_g_idx"],
            has_bytes,
            further,
        )
    return found


def _has_bytes(tensors: Mapping[str, TensorInfo], module: str, shape: tuple[int, int], bits: int) -> bool:
    """Whether zeros, where there are any, are not packed; ``shape``: rows and groups."""
    zeros = tensors.get(f"{module}.weight_zero_point")
    if zeros is None or (zeros.dtype, zeros.shape) == ("I8", shape):
        return zeros is not None
    packed = (-(-shape[0] // (WORD_BITS // bits)), shape[1])
    if (zeros.dtype, zeros.shape) != ("I32", packed):
        raise CheckpointError(
            f"tensor {module}.weight_zero_point has type {zeros.dtype} and shape {zeros.shape}, which does"
            f" not fit {shape[0]} rows of {shape[1]} groups"
        )
    return False


def _widths_of(config: Mapping[str, Any]) -> tuple[set[Any], int | None]:
    """Bits of integers in the groups of a compressed-tensors configuration, and columns that share a scale
    where that is the same number everywhere.
    """
    groups = config.get("config_groups")
    weights = [
        group["weights"]
        for group in (groups.values() if isinstance(groups, dict) else ())
        if isinstance(group, dict) and isinstance(group.get("weights"), dict)
    ]
    integers = [one for one in weights if one.get("type", "int") == "int"]
    sizes = {one.get("group_size") for one in integers}
    size = next(iter(sizes), None) if len(sizes) == 1 else None
    is_size = isinstance(size, int) and size > 0
    return {one.get("num_bits") for one in integers}, size if is_size else None


def _bits_of(words: TensorInfo, scale: TensorInfo, widths: set[Any], group_size: int | None) -> int:
    """Bits of one matrix: the only width there is, or that with which its words fill its groups."""
    if len(widths) <= 1:
        return checked_bits(next(iter(widths), 4), BITS)
    if group_size is None or len(words.shape) != 2 or len(scale.shape) != 2 or 0 in scale.shape:
        raise CheckpointError(
            "compressed-tensors with several widths in one model is read where all groups of columns are of"
            " one size; convert the model it was made from"
        )
    return checked_bits(words.shape[1] * WORD_BITS / (scale.shape[1] * group_size), BITS)


def checked_bits(bits: Any, allowed: tuple[int, ...]) -> int:
    """Bits that a configuration names.

    Raises:
        CheckpointError: they are none that are read.
    """
    if not isinstance(bits, int | float) or bits not in allowed:
        raise CheckpointError(
            f"integers of {bits} bits are not read, only {' and '.join(map(str, allowed))}; convert the model"
            " it was made from"
        )
    return int(bits)


def matrix_part(tensors: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    """A stored matrix that is part of a quantised one.

    Raises:
        CheckpointError: there is none.
    """
    if name not in tensors or len(tensors[name].shape) != 2:
        raise CheckpointError(f"there is no matrix {name}, which a quantised one needs; is a shard missing?")
    return tensors[name]
