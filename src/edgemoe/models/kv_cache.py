"""Keys and values of the tokens so far. Letters: G key/value heads, S slots, C head dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.models.spec import ModelSpec

KV_FORMATS: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
}


class KVCache:
    """Keys and values (G, S, C) per layer for one sequence; slots fill from 0 to ``length``."""

    def __init__(self, spec: ModelSpec, num_slots: int, format: str = "f16") -> None:
        dtype = KV_FORMATS[format]
        self.num_slots = num_slots
        self.length = 0
        self.keys: list[NDArray[Any]] = []
        self.values: list[NDArray[Any]] = []
        for layer in spec.layers:
            shape = (layer.attention.num_kv_heads, num_slots, layer.attention.head_dim)
            self.keys.append(np.empty(shape, dtype))
            self.values.append(np.empty(shape, dtype))

    @staticmethod
    def num_bytes(spec: ModelSpec, num_slots: int, format: str = "f16") -> int:
        """Bytes that a cache of this many slots takes."""
        per_slot = sum(2 * s.attention.num_kv_heads * s.attention.head_dim for s in spec.layers)
        return int(per_slot * num_slots * KV_FORMATS[format].itemsize)

    def truncate(self, length: int) -> None:
        """Forget the tokens from ``length`` on."""
        self.length = min(self.length, length)
