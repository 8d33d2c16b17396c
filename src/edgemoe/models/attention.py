"""Attention of one layer: to the tokens before, or to all of a text.

Letters: T tokens, D width, H query heads, G key/value heads, C head dimension, S slots.
"""

from __future__ import annotations

import numpy as np

from edgemoe import native
from edgemoe.models.kv_cache import Keys, KVCache
from edgemoe.models.positions import Positions
from edgemoe.models.spec import AttentionSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray


class Attention:
    """Projections, norms, rotation, cache and attention of one layer of a decoder."""

    def __init__(
        self, spec: AttentionSpec, weights: DenseWeights, prefix: str, place: int, eps: float
    ) -> None:
        """``place`` is the layer's in the cache."""
        self._spec = spec
        self._place = place
        self._eps = eps
        self._matrices = {p: weights.matrix(f"{prefix}.{p}.weight") for p in "qkvo"}
        self._biases = {p: weights.optional_vector(f"{prefix}.{p}.bias") for p in "qkvo"}
        self._norms = {p: weights.optional_vector(f"{prefix}.{p}_norm.weight") for p in "qk"}

    def __call__(self, x: FloatArray, cache: KVCache, positions: Positions) -> FloatArray:
        """Attention over the cache and x (T, D) itself, which is appended: (T, D)."""
        spec = self._spec
        q, k, v = (self._project(p, x) for p in "qkv")
        if spec.qk_norm == "projection":
            q, k = self._normed("q", q), self._normed("k", k)
        if spec.clip_qkv is not None:
            for projected in (q, k, v):
                np.clip(projected, -spec.clip_qkv, spec.clip_qkv, out=projected)
        if spec.qk_norm == "head":
            q = self._normed("q", q.reshape(-1, spec.head_dim))
            k = self._normed("k", k.reshape(-1, spec.head_dim))
        heads_q = q.reshape(len(x), spec.num_heads, spec.head_dim)
        heads_k = k.reshape(len(x), spec.num_kv_heads, spec.head_dim)
        if positions.rotation is not None:
            native.rope(heads_q, *positions.rotation)
            native.rope(heads_k, *positions.rotation)
        keys, values, start = cache.keys[self._place], cache.values[self._place], cache.length
        native.store_kv(keys, heads_k, start)
        native.store_kv(values, v.reshape(heads_k.shape), start)
        y = native.attention(heads_q, keys, values, start, spec.scale, spec.window, bias=positions.bias)
        return self._project("o", y.reshape(len(x), -1))

    def _project(self, name: str, x: FloatArray) -> FloatArray:
        y = native.matmul(x, self._matrices[name])
        bias = self._biases[name]
        if bias is not None:
            y += bias
        return y

    def _normed(self, name: str, x: FloatArray) -> FloatArray:
        weight = self._norms[name]
        assert weight is not None, f"no {name} norm was loaded"
        return native.rms_norm(x, weight, self._eps)


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
