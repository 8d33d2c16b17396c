"""Weights that no store may hold: values that are not finite, before or after they are packed."""

from __future__ import annotations

import numpy as np

from edgemoe import native
from edgemoe.checkpoint import SourceRef
from edgemoe.errors import CheckpointError
from edgemoe.native import ByteArray, FloatArray

# Up to these magnitudes every value and every scale of a format is finite, so that few matrices need a look.
_SAFE = {"f32": float(np.finfo(np.float32).max), "bf16": 2.0**127}
_SAFE_HALF = 2.0**15  # f16, and formats whose scales are f16


def refuse_not_finite(ref: SourceRef, values: FloatArray) -> None:
    """Refuse values that are not finite.

    Raises:
        CheckpointError: naming the tensor.
    """
    if not np.isfinite(values).all():
        raise CheckpointError(f"{_named(ref)} holds values that are not finite; fetch it again")


def refuse_misfit(ref: SourceRef, format: str, weights: FloatArray, packed: ByteArray) -> None:
    """Refuse weights that the format could not hold.

    Raises:
        CheckpointError: naming the tensor and its largest value.
    """
    largest = float(np.abs(weights).max(initial=0))
    if largest <= _SAFE.get(format, _SAFE_HALF):
        return
    restored = native.dequantize(packed, format, *weights.shape)
    change = np.abs(restored.astype(np.float64) - weights)
    # Infinity is no change that can be compared, and scales beyond their range can give any number.
    if not np.isfinite(restored).all() or change.max() > largest / 2:
        raise CheckpointError(
            f"{_named(ref)} holds {largest:.4g}, which {format} cannot; convert matrices of its kind to bf16"
            " or f32"
        )


def _named(ref: SourceRef) -> str:
    return f"tensor {ref.name}" if ref.index is None else f"tensor {ref.name} (expert {ref.index})"
