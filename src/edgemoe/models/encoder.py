"""An encoder driven by its spec: every token of a prompt sees all others. Letters: T tokens, D width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.finite import refuse_overflow
from edgemoe.models.mixers.attention import FullAttention
from edgemoe.models.moe import ExpertRunner, build_feed_forward
from edgemoe.models.positions import distance_bias
from edgemoe.models.spec import AttentionSpec, ModelSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray


class EncoderBlock:
    """One layer: attention to the whole text, then experts or a dense network, each around a residual."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, layer: int, experts: ExpertRunner) -> None:
        self._eps = spec.norm_eps
        attention, network = spec.layers[layer].mixer, spec.layers[layer].feed_forward
        assert isinstance(attention, AttentionSpec), "an encoder has attention in every layer"
        assert network is not None, "an encoder has a network in every layer"
        self._spec = attention
        self._attention_norm = weights.vector(f"layers.{layer}.attention_norm.weight")
        self._ffn_norm = weights.vector(f"layers.{layer}.ffn_norm.weight")
        self._attention = FullAttention(self._spec, weights, f"layers.{layer}.attention")
        self._feed_forward = build_feed_forward(network, weights, layer, experts, self._eps)

    def __call__(self, x: FloatArray, bias: FloatArray) -> FloatArray:
        """X (T, D) after this layer; x itself is overwritten."""
        normed = native.rms_norm(x, self._attention_norm, self._eps)
        shape = (self._spec.num_kv_heads, len(x), self._spec.head_dim)
        keys, values = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._attention.remember(normed, keys, values)
        x += self._attention(normed, keys, values, len(x), bias)
        x += self._feed_forward(native.rms_norm(x, self._ffn_norm, self._eps))
        return x


class Encoder:
    """The layers that run once for a prompt, over all of its tokens: each needed expert is read once."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, experts: ExpertRunner) -> None:
        self._spec = spec
        self._embed = weights.matrix("encoder_embed.weight" if spec.has_encoder_embedding else "embed.weight")
        self._norm = weights.vector("encoder_norm.weight")
        self._bias_table = weights.vector("encoder_bias.weight")
        self._blocks = [
            EncoderBlock(spec, weights, layer, experts) for layer in range(spec.num_encoder_layers)
        ]

    def forward(self, token_ids: NDArray[np.int32]) -> FloatArray:
        """Hidden states (T, D) of a whole prompt, after the last norm."""
        spec = self._spec.position_bias
        assert spec is not None, "an encoder without position bias"
        num_heads = self._spec.num_bias_heads
        bias = distance_bias(spec, self._bias_table, num_heads, len(token_ids), is_causal=False)
        x = native.dequantize_rows(self._embed, token_ids)
        for block in self._blocks:
            x = block(x, bias)
        refuse_overflow(x)
        return native.rms_norm(x, self._norm, self._spec.norm_eps)
