"""Integers of 4 or 8 bits packed in words of 32, with scales and zeros for groups of inputs: as GPTQ and AWQ
leave them, and AutoRound in the layout of one of the two. Inputs are rows of what is stored.

Letters: N outputs (rows of the matrix), M inputs (columns), P codes in a word, G groups of inputs.

* GPTQ (arXiv 2210.17323): ``qweight`` (M / P, N) and ``qzeros`` (G, N / P) with the lowest bits first, zeros
  less one, modulo their range, unless the file is of version 2; ``scales`` (G, N); ``g_idx`` (M) has the
  group of each input. Some writers leave version 2's zeros under version 1's name, which shows where all are
  half of the range: a symmetrical file has that as its zero, and never one more.
* AWQ (arXiv 2306.00978): ``qweight`` (M, N / P) and ``qzeros`` (G, N / P) with outputs in the order of
  ``_AWQ_ORDER``; ``scales`` (G, N).

Matrices of one model may have several widths and sizes of groups: the shapes say the width, and the settings
which sizes there are. Any rows of a matrix are read from all of it, packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.coded import ReadStored
from edgemoe.checkpoint.packed_int import BITS, WORD_BITS, checked_bits, group_indices, matrix_part, unpacked
from edgemoe.checkpoint.source import TensorInfo
from edgemoe.errors import CheckpointError
from edgemoe.native import FloatArray

# Which output of eight each nibble of a word holds, the lowest first.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


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
        per_word = WORD_BITS // self.bits
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
            name = f"{self.module}.g_idx"
            groups = group_indices(read(name, None, 0, num_cols), num_groups, name)
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
    is_symmetrical = config.get("sym") is True and all(
        own.get("sym") is not False for own in _overrides(config)
    )
    if "gptq" not in packing or not is_symmetrical:
        raise CheckpointError(
            f"AutoRound's packing_format {packing!r} is not read, only AWQ's and GPTQ's of symmetrical"
            " integers; convert the model it was made from"
        )
    return find_gptq(tensors, config)


def _find_by_input(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], *, is_awq: bool, added_to_zeros: int
) -> dict[str, ByInput]:
    found = {}
    widths = list(_widths(config, (4,) if is_awq else BITS))
    sizes = list(_group_sizes(config))
    for name in tensors:
        if not name.endswith(".qweight"):
            continue
        module = name.removesuffix(".qweight")
        words, zeros, scales = (
            matrix_part(tensors, f"{module}.{part}") for part in ("qweight", "qzeros", "scales")
        )
        num_groups, num_rows = scales.shape
        bits = _bits_of(zeros, num_rows, widths)
        per_word = WORD_BITS // bits
        num_cols = words.shape[0] * (1 if is_awq else per_word)
        expected = (num_cols, num_rows // per_word) if is_awq else (num_cols // per_word, num_rows)
        if words.shape != expected or zeros.shape != (num_groups, num_rows // per_word):
            raise CheckpointError(
                f"tensor {name} has shape {words.shape}, its scales {scales.shape}, its zeros {zeros.shape}:"
                f" they do not fit {bits} bits"
            )
        group_size = _group_size(module, num_cols, num_groups, sizes)
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


def _overrides(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Settings of single matrices: GPTQ's by patterns of their names, AutoRound's by the names."""
    for key in ("dynamic", "extra_config"):
        table = config.get(key)
        if isinstance(table, Mapping):
            yield from (own for own in table.values() if isinstance(own, Mapping))


def _group_sizes(config: Mapping[str, Any]) -> Iterator[Any]:
    """Inputs that share a scale: the usual number, and those of single matrices."""
    yield config.get("group_size", config.get("q_group_size", -1))
    yield from (own["group_size"] for own in _overrides(config) if "group_size" in own)


def _widths(config: Mapping[str, Any], allowed: tuple[int, ...]) -> Iterator[int]:
    """Bits: the usual number, and those of single matrices; others than these are no part of what is read."""
    yield checked_bits(config.get("bits", config.get("w_bit", 4)), allowed)
    yield from (own["bits"] for own in _overrides(config) if own.get("bits") in allowed)


def _bits_of(zeros: TensorInfo, num_rows: int, widths: list[int]) -> int:
    """Bits of one matrix: those with which its words of zeros hold one for each output, else the usual."""
    fitting = (bits for bits in widths if zeros.shape[1] == num_rows // (WORD_BITS // bits))
    return next(fitting, widths[0])


def _group_size(module: str, num_cols: int, num_groups: int, sizes: list[Any]) -> int:
    """That of the sizes with which a matrix has so many groups; no positive number: all inputs are one."""
    plain = [size if isinstance(size, int) and size > 0 else num_cols for size in sizes]
    fitting = [size for size in plain if -(-num_cols // size) == num_groups]
    if not fitting:
        raise CheckpointError(
            f"tensor {module}.scales has {num_groups} groups; config.json implies groups of {plain[0]}"
        )
    if len({min(size, num_cols) for size in fitting}) > 1:
        raise CheckpointError(
            f"tensor {module}.scales may have groups of {' or of '.join(map(str, sorted(set(fitting))))}"
            " by config.json; convert the model it was made from"
        )
    return fitting[0]
