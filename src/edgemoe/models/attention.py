"""Grouped-query attention of one layer. Letters: T tokens, D width, H, G heads, C head dimension."""

from __future__ import annotations

import numpy as np

from edgemoe import native
from edgemoe.models.kv_cache import KVCache
from edgemoe.models.spec import AttentionSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray


class Attention:
    """Projections, norms, rotation, cache and attention of one layer."""

    def __init__(self, spec: AttentionSpec, weights: DenseWeights, layer: int, eps: float) -> None:
        self._spec = spec
        self._layer = layer
        self._eps = eps
        prefix = f"layers.{layer}.attention"
        self._matrices = {p: weights.matrix(f"{prefix}.{p}.weight") for p in "qkvo"}
        self._biases = {p: weights.optional_vector(f"{prefix}.{p}.bias") for p in "qkvo"}
        self._norms = {p: weights.optional_vector(f"{prefix}.{p}_norm.weight") for p in "qk"}

    def __call__(self, x: FloatArray, cache: KVCache, cos: FloatArray, sin: FloatArray) -> FloatArray:
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
        native.rope(heads_q, cos, sin)
        native.rope(heads_k, cos, sin)
        keys, values, start = cache.keys[self._layer], cache.values[self._layer], cache.length
        native.store_kv(keys, heads_k, start)
        native.store_kv(values, v.reshape(heads_k.shape), start)
        y = native.attention(heads_q, keys, values, start, spec.scale, spec.window)
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
