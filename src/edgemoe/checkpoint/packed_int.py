"""Integers of 4 or 8 bits packed in words of 32, with scales and zeros for groups of inputs: as GPTQ, AWQ and
compressed-tensors leave them, and AutoRound in the layout of one of the first two.

Letters: N outputs (rows of the matrix), M inputs (columns), P codes in a word, G groups of inputs.

* GPTQ (arXiv 2210.17323): ``qweight`` (M / P, N) and ``qzeros`` (G, N / P) with the lowest bits first, zeros
  less one, modulo their range, unless the file is of version 2; ``scales`` (G, N); ``g_idx`` (M) has the
  group of each input. Some writers leave version 2's zeros under version 1's name, which shows where all are
  half of the range: a symmetrical file has that as its zero, and never one more.
* AWQ (arXiv 2306.00978): ``qweight`` (M, N / P) and ``qzeros`` (G, N / P) with outputs in the order of
  ``_AWQ_ORDER``; ``scales`` (G, N).
* compressed-tensors: ``weight_packed`` (N, M / P) with the lowest bits first and half of the range added,
  ``weight_scale`` (N, G), maybe ``weight_zero_point`` (N / P, G), packed alike, and ``weight_g_idx`` (M).

Matrices whose outputs are not rows of what is stored are read as a whole, packed, for any rows.
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

_WORD_BITS = 32
# Which output of eight each nibble of a word holds, the lowest first.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
BITS = (4, 8)


def unpacked(words: NDArray[Any], bits: int, axis: int) -> NDArray[np.int32]:
    """Codes of words, in place of each along an axis, the lowest bits first."""
    shifts = np.arange(0, _WORD_BITS, bits, dtype=np.uint32)
    codes = (np.expand_dims(words.view(np.uint32), axis + 1) >> _along(shifts, axis + 1, words.ndim + 1)) & (
        (1 << bits) - 1
    )
    shape = list(words.shape)
    shape[axis] *= len(shifts)
    return np.asarray(codes, np.int32).reshape(shape)


def _along(values: NDArray[Any], axis: int, ndim: int) -> NDArray[Any]:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


@dataclass(frozen=True)
class ByInput:
    """GPTQ's and AWQ's: inputs are rows of what is stored."""

    module: str
    info: TensorInfo
    bits: int
    group_size: int
    is_awq: bool
    has_group_indices: bool = False
    added_to_zeros: int = 0
    is_symmetrical: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """See CodedTensor."""
        names = ("qweight", "qzeros", "scales", *(("g_idx",) if self.has_group_indices else ()))
        return tuple(f"{self.module}.{name}" for name in names)

    def rows(self, read: ReadStored, index: int | None, start: int, stop: int) -> FloatArray:
        """See CodedTensor."""
        num_cols = self.info.shape[1]
        per_word = _WORD_BITS // self.bits
        # Whole words of outputs around those that are wanted.
        low, high = start // per_word, -(-stop // per_word)
        words = read(f"{self.module}.qweight", None, 0, num_cols if self.is_awq else num_cols // per_word)
        num_groups = -(-num_cols // self.group_size)
        zeros = self._outputs(read(f"{self.module}.qzeros", None, 0, num_groups)[:, low:high])
        if self.is_awq:
            codes = self._outputs(words[:, low:high])
        else:
            codes = unpacked(np.ascontiguousarray(words[:, low * per_word : high * per_word]), self.bits, 0)
        outputs = slice(start - low * per_word, stop - low * per_word)
        scales = read(f"{self.module}.scales", None, 0, num_groups)[:, start:stop]
        groups = np.arange(num_cols) // self.group_size
        if self.has_group_indices:
            groups = read(f"{self.module}.g_idx", None, 0, num_cols).astype(np.int64)
            if groups.min() < 0 or groups.max() >= num_groups:
                raise CheckpointError(f"tensor {self.module}.g_idx names groups that are not there")
        centred = codes[:, outputs] - self._zeros(zeros[:, outputs])[groups]
        return np.ascontiguousarray((centred * scales[groups]).T, np.float32)

    def _zeros(self, stored: NDArray[np.int32]) -> NDArray[np.int32]:
        """The codes that stand for 0."""
        if self.is_symmetrical and np.all(stored == 1 << (self.bits - 1)):
            return stored
        return (stored + self.added_to_zeros) & ((1 << self.bits) - 1)

    def _outputs(self, words: NDArray[Any]) -> NDArray[np.int32]:
        """Codes of words along outputs, in the order of the outputs."""
        codes = unpacked(np.ascontiguousarray(words), self.bits, 1)
        if not self.is_awq:
            return codes
        by_word = codes.reshape(len(codes), -1, len(_AWQ_ORDER))
        return by_word[:, :, np.argsort(_AWQ_ORDER)].reshape(codes.shape)


@dataclass(frozen=True)
class ByOutput:
    """compressed-tensors': outputs are rows of what is stored."""

    module: str
    info: TensorInfo
    bits: int
    num_groups: int
    has_zeros: bool
    has_group_indices: bool
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
            groups = read(f"{self.module}.weight_g_idx", None, 0, num_cols).astype(np.int64)
        if self.has_zeros:
            per_word = _WORD_BITS // self.bits
            low, high = start // per_word, -(-stop // per_word)
            packed = read(f"{self.module}.weight_zero_point", None, low, high)
            zeros = unpacked(np.ascontiguousarray(packed), self.bits, 0)[start - low * per_word :] - half
            codes = codes - zeros[: stop - start, groups]
        return np.ascontiguousarray(codes * scales[:, groups], np.float32)


def find_gptq(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> dict[str, ByInput]:
    """The matrices of a GPTQ checkpoint.

    Raises:
        CheckpointError: bits that are not read, or shapes that do not fit.
    """
    is_second = "gptq_v2" in (config.get("checkpoint_format"), config.get("format"))
    return _find_by_input(tensors, config, is_awq=False, added_to_zeros=0 if is_second else 1)


def find_awq(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> dict[str, ByInput]:
    """The matrices of an AWQ checkpoint.

    Raises:
        CheckpointError: a layout that is not read, or shapes that do not fit.
    """
    version = str(config.get("version", "gemm")).lower()
    if version != "gemm" or config.get("zero_point") is False:
        raise CheckpointError(
            f"AWQ of version {version!r} is not read, only gemm with zero points; convert the model it was"
            " made from"
        )
    return _find_by_input(tensors, config, is_awq=True, added_to_zeros=0)


def find_auto_round(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> dict[str, ByInput]:
    """The matrices of an AutoRound checkpoint, which lie as GPTQ or AWQ would have them.

    Raises:
        CheckpointError: another layout, or one whose zeros may be of either version of GPTQ.
    """
    packing = str(config.get("packing_format"))
    if packing.endswith("awq"):
        return find_awq(tensors, config)
    if "gptq" not in packing or config.get("sym") is not True:
        raise CheckpointError(
            f"AutoRound's packing_format {packing!r} is not read, only AWQ's and GPTQ's of symmetrical"
            " integers; convert the model it was made from"
        )
    return find_gptq(tensors, config)


def _find_by_input(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], *, is_awq: bool, added_to_zeros: int
) -> dict[str, ByInput]:
    found = {}
    bits = _checked_bits(config.get("bits", config.get("w_bit", 4)), (4,) if is_awq else BITS)
    for name in tensors:
        if not name.endswith(".qweight"):
            continue
        module = name.removesuffix(".qweight")
        words, zeros, scales = (
            _part(tensors, f"{module}.{part}") for part in ("qweight", "qzeros", "scales")
        )
        per_word = _WORD_BITS // bits
        num_groups, num_rows = scales.shape
        num_cols = words.shape[0] * (1 if is_awq else per_word)
        expected = (num_cols, num_rows // per_word) if is_awq else (num_cols // per_word, num_rows)
        if words.shape != expected or zeros.shape != (num_groups, num_rows // per_word):
            raise CheckpointError(
                f"tensor {name} has shape {words.shape}, its scales {scales.shape}, its zeros {zeros.shape}:"
                f" they do not fit {bits} bits"
            )
        asked = config.get("group_size", config.get("q_group_size", -1))
        group_size = asked if isinstance(asked, int) and asked > 0 else num_cols
        if -(-num_cols // group_size) != num_groups:
            raise CheckpointError(
                f"tensor {module}.scales has {num_groups} groups; config.json implies groups of {group_size}"
            )
        indices = f"{module}.g_idx" in tensors
        parts = [f"{module}.{p}" for p in ("qweight", "qzeros", "scales", *(("g_idx",) if indices else ()))]
        info = TensorInfo(
            (num_rows, num_cols),
            f"{'AWQ' if is_awq else 'GPTQ'} int{bits}",
            sum(tensors[part].num_bytes for part in parts),
        )
        found[f"{module}.weight"] = ByInput(
            module, info, bits, group_size, is_awq, indices, added_to_zeros, config.get("sym") is True
        )
    return found


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
        scale = _part(tensors, f"{module}.weight_scale")
        bits = _bits_of(words, scale, widths, group_size)
        num_rows = words.shape[0]
        num_cols = words.shape[1] * (_WORD_BITS // bits)
        num_groups = scale.shape[1] if len(scale.shape) == 2 else 1
        if words.dtype != "I32" or scale.shape[0] != num_rows or num_cols % num_groups:
            raise CheckpointError(
                f"tensor {name} has type {words.dtype} and shape {words.shape}, its scales {scale.shape}:"
                " they do not fit"
            )
        optional = {part: f"{module}.{part}" in tensors for part in ("weight_zero_point", "weight_g_idx")}
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
            further,
        )
    return found


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
        return _checked_bits(next(iter(widths), 4), BITS)
    if group_size is None or len(words.shape) != 2 or len(scale.shape) != 2 or 0 in scale.shape:
        raise CheckpointError(
            "compressed-tensors with several widths in one model is read where all groups of columns are of"
            " one size; convert the model it was made from"
        )
    return _checked_bits(words.shape[1] * _WORD_BITS / (scale.shape[1] * group_size), BITS)


def _checked_bits(bits: Any, allowed: tuple[int, ...]) -> int:
    if not isinstance(bits, int | float) or bits not in allowed:
        raise CheckpointError(
            f"integers of {bits} bits are not read, only {' and '.join(map(str, allowed))}; convert the model"
            " it was made from"
        )
    return int(bits)


def _part(tensors: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    if name not in tensors or len(tensors[name].shape) != 2:
        raise CheckpointError(f"there is no matrix {name}, which a quantised one needs; is a shard missing?")
    return tensors[name]
