"""Attention of one layer: to the tokens before, or to all of a text.

Letters: T tokens, D width, H query heads, G key/value heads, C head dimension, S slots.
"""

from __future__ import annotations

from edgemoe import native
from edgemoe.models.kv_cache import Keys, KVCache
from edgemoe.models.positions import Positions
from edgemoe.models.spec import AttentionSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray


class Attention:
    """Norm, projections, rotation, cache and attention of one layer of a decoder."""

    def __init__(
        self, spec: AttentionSpec, weights: DenseWeights, layer: int, place: int, eps: float
    ) -> None:
        """``place`` is the layer's in the cache."""
        self._place = place
        prefix = f"layers.{layer}.attention"
        norms = None
        if spec.qk_norm != "none":
            norms = weights.vector(f"{prefix}.q_norm.weight"), weights.vector(f"{prefix}.k_norm.weight")
        self._layer = native.AttentionLayer(
            weights.vector(f"layers.{layer}.attention_norm.weight"),
            eps,
            [
                (weights.matrix(f"{prefix}.{p}.weight"), weights.optional_vector(f"{prefix}.{p}.bias"))
                for p in "qkvo"
            ],
            norms,
            has_norms_of_heads=spec.qk_norm == "head",
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            clip=spec.clip_qkv or 0.0,
            scale=spec.scale,
            window=spec.window,
        )

    def add_to(self, x: FloatArray, cache: KVCache, positions: Positions) -> None:
        """Add to x (T, D) what its tokens see in the cache and in each other; they are appended to it."""
        keys, values = cache.keys[self._place], cache.values[self._place]
        self._layer.run(x, keys, values, cache.length, positions.rotation, positions.bias)


class FullAttention:
    """Attention to all of a text: of an encoder to itself, or of a decoder to what the encoder made.

    Without norms, biases of projections and rotation, which no family with an encoder has.
    """

    def __init__(self, spec: AttentionSpec, weights: DenseWeights, prefix: str) -> None:
        self._spec = spec
        self._matrices = {p: weights.matrix(f"{prefix}.{p}.weight") for p in "qkvo"}

    def remember(self, states: FloatArray, keys: Keys, values: Keys) -> None:
        """Write the keys and values of states (T, D) to the first T slots of (G, S, C) each."""
        shape = (len(states), self._spec.num_kv_heads, self._spec.head_dim)
        native.store_kv(keys, native.matmul(states, self._matrices["k"]).reshape(shape), 0)
        native.store_kv(values, native.matmul(states, self._matrices["v"]).reshape(shape), 0)

    def __call__(
        self, x: FloatArray, keys: Keys, values: Keys, num_keys: int, bias: FloatArray | None = None
    ) -> FloatArray:
        """What x (T, D) finds among the first ``num_keys`` slots: (T, D)."""
        spec = self._spec
        q = native.matmul(x, self._matrices["q"]).reshape(len(x), spec.num_heads, spec.head_dim)
        y = native.attention(q, keys, values, 0, spec.scale, num_keys=num_keys, bias=bias)
        return native.matmul(y.reshape(len(x), -1), self._matrices["o"])
