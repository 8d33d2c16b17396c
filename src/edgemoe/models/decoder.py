"""A pre-norm decoder driven by its spec. Letters: T tokens, D width, V vocabulary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.attention import Attention
from edgemoe.models.kv_cache import KVCache
from edgemoe.models.moe import ExpertRunner, build_feed_forward
from edgemoe.models.rope import rotation
from edgemoe.models.spec import ModelSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray


class Block:
    """One layer: attention, then experts or a dense network, each around a residual."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, layer: int, experts: ExpertRunner) -> None:
        self._eps = spec.norm_eps
        self._attention_norm = weights.vector(f"layers.{layer}.attention_norm.weight")
        self._ffn_norm = weights.vector(f"layers.{layer}.ffn_norm.weight")
        layer_spec = spec.layers[layer]
        self._attention = Attention(layer_spec.attention, weights, layer, spec.norm_eps)
        self._feed_forward = build_feed_forward(layer_spec.feed_forward, weights, layer, experts)

    def __call__(self, x: FloatArray, cache: KVCache, cos: FloatArray, sin: FloatArray) -> FloatArray:
        """X (T, D) after this layer; x itself is overwritten."""
        x += self._attention(native.rms_norm(x, self._attention_norm, self._eps), cache, cos, sin)
        x += self._feed_forward(native.rms_norm(x, self._ffn_norm, self._eps))
        return x


class Decoder:
    """The whole model. One token's result has the same bits however a text is cut into calls."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, experts: ExpertRunner) -> None:
        self._spec = spec
        self._embed = weights.matrix("embed.weight")
        self._head = self._embed if spec.has_tied_head else weights.matrix("head.weight")
        self._norm = weights.vector("norm.weight")
        self._blocks = [Block(spec, weights, layer, experts) for layer in range(len(spec.layers))]

    def forward(self, token_ids: NDArray[np.int32], cache: KVCache) -> FloatArray:
        """Hidden states (T, D) of the next T tokens of the cache's text, after the last norm."""
        return self.forward_from(0, self.embed(token_ids), cache)

    def embed(self, token_ids: NDArray[np.int32]) -> FloatArray:
        """What the first layer gets, (T, D)."""
        return native.dequantize_rows(self._embed, token_ids)

    def forward_from(
        self, first: int, x: FloatArray, cache: KVCache, before: list[FloatArray] | None = None
    ) -> FloatArray:
        """As ``forward``, from the layer ``first`` on, which gets x (T, D); x is overwritten.

        What each layer gets is copied to ``before``. Keys and values of earlier layers stay as they are.
        """
        cos, sin = rotation(self._spec.rope, cache.length, len(x))
        for block in self._blocks[first:]:
            if before is not None:
                before.append(x.copy())
            x = block(x, cache, cos, sin)
        cache.length += len(x)
        return native.rms_norm(x, self._norm, self._spec.norm_eps)

    def head(self, hidden: FloatArray) -> FloatArray:
        """Logits (T, V) of hidden states (T, D)."""
        return native.matmul(hidden, self._head)
