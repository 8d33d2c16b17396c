"""A matrix of a checkpoint becomes bytes of a store, some rows at a time; what that changes is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.checkpoint import CheckpointSource, ExactSource, SourceRef, TensorInfo
from edgemoe.convert.soundness import refuse_misfit, refuse_not_finite
from edgemoe.errors import CheckpointError
from edgemoe.native import ByteArray, FloatArray
from edgemoe.quant import format_info, quantize_for

# Floats held at a time: small against the memory of any machine, large against the cost of a call.
CHUNK_FLOATS = 4 * 1024**2


class Packer:
    """Packs matrices of one checkpoint, and keeps how much their weights changed."""

    def __init__(self, source: CheckpointSource, stored: Mapping[str, TensorInfo]) -> None:
        self._source = source
        self._stored = stored
        # Squared changes and squares of the sampled weights of each chunk, by "stored type → format". Kept
        # apart and summed without rounding, so that the order in which parts are packed shows nowhere.
        self.squares: dict[str, list[tuple[float, float]]] = {}

    def chunks(
        self, ref: SourceRef, rows: int, cols: int, format: str, gram: FloatArray | None = None
    ) -> Iterator[ByteArray]:
        """A matrix (rows, cols) packed, chunk by chunk; ``gram`` as ``quantize_for`` takes it.

        Raises:
            CheckpointError: it cannot be read, or holds what the format cannot.
        """
        step = max(1, CHUNK_FLOATS // cols // native.ROW_GROUP) * native.ROW_GROUP
        is_exact = holds_exactly(format, ref, self._stored[ref.name])
        for start in range(0, rows, step):
            part = ref.slice_rows(start, min(start + step, rows))
            if is_exact:
                assert isinstance(self._source, ExactSource)
                self.squares.setdefault(self.change(ref, format), [])
                yield self._source.read_packed(part)
                continue
            weights = self._source.read(part)
            refuse_not_finite(ref, weights)
            packed = quantize_for(weights, format, gram)
            refuse_misfit(ref, format, weights, packed)
            self._note_rounding(ref, format, weights, packed)
            yield packed

    def change(self, ref: SourceRef, format: str) -> str:
        """What becomes of a matrix: "stored type → format"."""
        return f"{self._stored[ref.name].dtype} → {format}"

    def rounding(self) -> dict[str, float]:
        """Relative root-mean-square change of the weights by "stored type → format"; 0 where none changes."""
        return {
            key: math.sqrt(math.fsum(c for c, _ in parts) / max(math.fsum(w for _, w in parts), 1e-30))
            for key, parts in self.squares.items()
        }

    def check_exact(self, ref: SourceRef, format: str) -> None:
        """Refuse a format that holds another engine's blocks for a matrix that is not made of them.

        Raises:
            CheckpointError: naming the tensor.
        """
        info = self._stored[ref.name]
        if not format_info(format).is_rounded and not holds_exactly(format, ref, info):
            raise CheckpointError(
                f"the plan stores tensor {ref.name} as {format}, which holds"
                f" {format_info(format).block_type} as it is; the tensor is {info.dtype}:"
                " choose a width in bits, or plan again from this file"
            )

    def _note_rounding(
        self, ref: SourceRef, format: str, weights: NDArray[np.float32], packed: ByteArray
    ) -> None:
        """Compare the first rows of a chunk with what has become of them."""
        head = weights[: native.ROW_GROUP]
        num_bytes = native.packed_num_bytes(format, *head.shape)
        restored = native.dequantize(packed[:num_bytes], format, *head.shape).astype(np.float64)
        self.squares.setdefault(self.change(ref, format), []).append(
            (float(np.square(restored - head).sum()), float(np.square(head, dtype=np.float64).sum()))
        )


def holds_exactly(format: str, ref: SourceRef, info: TensorInfo) -> bool:
    """Whether a format holds the blocks of a part of a tensor as they are."""
    if info.exact_format != format:
        return False
    return ref.stored_rows(info.shape if ref.index is None else info.shape[1:]) is not None
