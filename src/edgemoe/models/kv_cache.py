"""Keys and values of the tokens so far. Letters: G key/value heads, S slots, C head dimension."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.spec import AttentionSpec, ModelSpec

KV_FORMATS: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
}
Keys = NDArray[Any]  # (G, S, C), or values


class KVCache:
    """Keys and values (G, S, C) per layer of the decoder for one sequence; slots fill from 0 to ``length``.

    Layers that look at an encoder's states have those in ``cross_keys`` and ``cross_values``, of which
    ``cross_length`` slots are filled.
    """

    def __init__(self, spec: ModelSpec, num_slots: int, format: str = "f16") -> None:
        self.num_slots = num_slots
        self.length = 0
        self.cross_length = 0
        dtype = KV_FORMATS[format]
        self.keys, self.values = (_slots(_own(spec), num_slots, dtype) for _ in range(2))
        self.cross_keys, self.cross_values = (_slots(_cross(spec), num_slots, dtype) for _ in range(2))

    @staticmethod
    def num_bytes(spec: ModelSpec, num_slots: int, format: str = "f16") -> int:
        """Bytes that a cache of this many slots takes."""
        per_slot = sum(2 * a.num_kv_heads * a.head_dim for a in (*_own(spec), *_cross(spec)))
        return int(per_slot * num_slots * KV_FORMATS[format].itemsize)

    def truncate(self, length: int) -> None:
        """Forget the tokens from ``length`` on; what came from an encoder stays."""
        self.length = min(self.length, length)


def _own(spec: ModelSpec) -> list[AttentionSpec]:
    return [spec.layers[layer].attention for layer in spec.decoder_layers]


def _cross(spec: ModelSpec) -> list[AttentionSpec]:
    crossing = (spec.layers[layer].cross for layer in spec.decoder_layers)
    return [attention for attention in crossing if attention is not None]


def _slots(attentions: Iterable[AttentionSpec], num_slots: int, dtype: np.dtype[Any]) -> list[Keys]:
    return [np.empty((a.num_kv_heads, num_slots, a.head_dim), dtype) for a in attentions]
