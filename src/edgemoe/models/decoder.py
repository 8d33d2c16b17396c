"""A pre-norm decoder driven by its spec. Letters: T tokens, D width, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.attention import Attention, FullAttention
from edgemoe.models.kv_cache import KVCache
from edgemoe.models.moe import ExpertRunner, MoELayer, build_feed_forward
from edgemoe.models.positions import Positions, distance_bias
from edgemoe.models.rope import Rotation
from edgemoe.models.spec import AttentionSpec, ModelSpec
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray, Rehearsal, Rehearsed


class Cross:
    """One layer's look at what the encoder made of the prompt."""

    def __init__(
        self, spec: AttentionSpec, weights: DenseWeights, layer: int, place: int, eps: float
    ) -> None:
        self._place = place
        self._eps = eps
        self._norm = weights.vector(f"layers.{layer}.cross_norm.weight")
        self._attention = FullAttention(spec, weights, f"layers.{layer}.cross")

    def remember(self, states: FloatArray, cache: KVCache) -> None:
        """Keep keys and values of the encoder's states (T, D)."""
        self._attention.remember(states, cache.cross_keys[self._place], cache.cross_values[self._place])

    def __call__(self, x: FloatArray, cache: KVCache) -> FloatArray:
        """What is added to x (T, D)."""
        keys, values = cache.cross_keys[self._place], cache.cross_values[self._place]
        normed = native.rms_norm(x, self._norm, self._eps)
        return self._attention(normed, keys, values, cache.cross_length)


class Block:
    """One layer: attention, maybe a look at the encoder's states, then experts or a dense network."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, layer: int, experts: ExpertRunner) -> None:
        self._eps = spec.norm_eps
        self._ffn_norm = weights.vector(f"layers.{layer}.ffn_norm.weight")
        layer_spec, place = spec.layers[layer], layer - spec.num_encoder_layers
        self._attention = Attention(layer_spec.attention, weights, layer, place, spec.norm_eps)
        self.cross: Cross | None = None
        if layer_spec.cross is not None:
            self.cross = Cross(layer_spec.cross, weights, layer, place, spec.norm_eps)
        self.feed_forward = build_feed_forward(layer_spec.feed_forward, weights, layer, experts)

    def __call__(
        self, x: FloatArray, cache: KVCache, positions: Positions, rehearse: Rehearsal | None = None
    ) -> FloatArray:
        """X (T, D) after this layer; x itself is overwritten once its experts have run."""
        normed = self.attend(x, cache, positions)
        if isinstance(self.feed_forward, MoELayer):
            x += self.feed_forward(normed, rehearse)
        else:
            x += self.feed_forward(normed)
        return x

    def attend(self, x: FloatArray, cache: KVCache, positions: Positions) -> FloatArray:
        """Add to x (T, D) what it sees; what the second half of the layer gets."""
        self._attention.add_to(x, cache, positions)
        if self.cross is not None:
            x += self.cross(x, cache)
        return native.rms_norm(x, self._ffn_norm, self._eps)


class DecoderRehearsal:
    """Takes one token through the layers that follow, before all experts are there; see native.Rehearsal.

    Keys and values of what is rehearsed are written to the cache, where those of the layers' own runs replace
    them.
    """

    def __init__(self, blocks: Iterator[Block], x: FloatArray, cache: KVCache, positions: Positions) -> None:
        """``x`` (1, D) is the state without what the layer's experts add."""
        self._blocks = blocks
        self._x = x
        self._cache = cache
        self._positions = positions
        self._shared: Callable[[], FloatArray] | None = None  # of the layer rehearsed last

    def __call__(self, added: FloatArray) -> Rehearsed | None:
        """See native.Rehearsal."""
        self._x = self._x + added  # a copy: the token itself goes on from the old one
        if self._shared is not None:
            self._x += self._shared()
        for block in self._blocks:
            network = block.feed_forward
            if isinstance(network, MoELayer):
                normed = block.attend(self._x, self._cache, self._positions)
                self._shared = partial(network.run_shared, normed) if network.has_shared else None
                return network.rehearse(normed)
            self._x = block(self._x, self._cache, self._positions)
        return None


class Decoder:
    """The model, or its decoder. One token's result has the same bits however a text is cut into calls."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, experts: ExpertRunner) -> None:
        self._spec = spec
        self._embed = weights.matrix("embed.weight")
        self._head = self._embed if spec.has_tied_head else weights.matrix("head.weight")
        self._norm = weights.vector("norm.weight")
        self._blocks = [Block(spec, weights, layer, experts) for layer in spec.decoder_layers]
        self._rotation = None if spec.rope is None else Rotation(spec.rope)
        self._bias_table = weights.optional_vector("bias.weight")
        self._bias: FloatArray | None = None  # for the cache's number of slots, once that is known

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
        positions = self._positions(cache, len(x))
        for i, block in enumerate(self._blocks[first:], first):
            if before is not None:
                before.append(x.copy())
            rehearse = None
            if len(x) == 1:  # of many tokens the next layers need nearly all experts anyway
                rehearse = DecoderRehearsal(islice(self._blocks, i + 1, None), x, cache, positions)
            x = block(x, cache, positions, rehearse)
        cache.length += len(x)
        return native.rms_norm(x, self._norm, self._spec.norm_eps)

    def head(self, hidden: FloatArray) -> FloatArray:
        """Logits (T, V) of hidden states (T, D)."""
        scale = self._spec.head_scale
        return native.matmul(hidden if scale == 1 else hidden * np.float32(scale), self._head)

    def begin(self, states: FloatArray, cache: KVCache) -> None:
        """Start an answer to what the encoder made of a prompt, states (T, D): nothing is written yet."""
        for block in self._blocks:
            assert block.cross is not None, "a model with an encoder looks at its states in every layer"
            block.cross.remember(states, cache)
        cache.cross_length = len(states)
        cache.truncate(0)

    def _positions(self, cache: KVCache, num_tokens: int) -> Positions:
        spec = self._spec
        if self._rotation is not None:
            return Positions(rotation=self._rotation(cache.length, num_tokens))
        assert spec.position_bias is not None, "neither rotation nor bias"
        assert self._bias_table is not None, "no table of position biases was loaded"
        if self._bias is None or self._bias.shape[1] != 2 * cache.num_slots - 1:
            num_heads = spec.layers[-1].attention.num_heads
            self._bias = distance_bias(
                spec.position_bias, self._bias_table, num_heads, cache.num_slots, is_causal=True
            )
        return Positions(bias=self._bias)
