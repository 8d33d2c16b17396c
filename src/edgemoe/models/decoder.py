"""A decoder driven by its spec: layers around a residual stream. Letters: T rows of a step, D width, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.finite import overflow_error, refuse_not_finite, refuse_overflow
from edgemoe.models.layer_state import Slots
from edgemoe.models.mixers.attention import FullAttention
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.moe import ExpertRunner, MoELayer, MoETurn, build_feed_forward
from edgemoe.models.positions import DistanceBias
from edgemoe.models.rope import Rotation
from edgemoe.models.segments import Segment, one_text
from edgemoe.models.spec import AttentionSpec, ModelSpec, RopeSpec
from edgemoe.models.state import SequenceState
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray, Rehearsed


class Cross:
    """One layer's look at what the encoder made of the prompt."""

    def __init__(
        self, spec: AttentionSpec, weights: DenseWeights, layer: int, place: int, eps: float
    ) -> None:
        self._place = place
        self._eps = eps
        self._norm = weights.vector(f"layers.{layer}.cross_norm.weight")
        self._attention = FullAttention(spec, weights, f"layers.{layer}.cross")

    def remember(self, encoded: FloatArray, state: SequenceState) -> None:
        """Keep keys and values of the encoder's states (T, D)."""
        slots = self._slots(state)
        self._attention.remember(encoded, slots.keys, slots.values)

    def add_to(self, x: FloatArray, segments: Sequence[Segment]) -> None:
        """Add to x (T, D) what each row finds in what the encoder made of its text's prompt."""
        normed = native.rms_norm(x, self._norm, self._eps)
        for segment in segments:
            slots, rows = self._slots(segment.state), segment.rows
            num_keys = segment.state.cross_length
            x[rows] += self._attention(normed[rows], slots.keys, slots.values, num_keys)

    def _slots(self, state: SequenceState) -> Slots:
        slots = state.cross[self._place]
        assert slots is not None, "a text's state was made for a model without an encoder"
        return slots


class _Norm:
    """By the mean square of a row, or where there is a bias by its mean and variance."""

    def __init__(self, name: str, weights: DenseWeights, eps: float) -> None:
        self._weight = weights.vector(f"{name}.weight")
        self._bias = weights.optional_vector(f"{name}.bias")
        self._eps = eps

    def __call__(self, x: FloatArray) -> FloatArray:
        """X (T, D) normed."""
        if self._bias is None:
            return native.rms_norm(x, self._weight, self._eps)
        return native.layer_norm(x, self._weight, self._bias, self._eps)


class Block:
    """One layer: a token mixer, maybe a look at the encoder's states, then experts or a dense network."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: DenseWeights,
        layer: int,
        experts: ExpertRunner,
        mixer: TokenMixer | None,
    ) -> None:
        layer_spec, prefix = spec.layers[layer], f"layers.{layer}"
        self.place = layer - spec.num_encoder_layers
        self._eps = spec.norm_eps
        self._mixer = mixer
        self.cross: Cross | None = None
        if layer_spec.cross is not None:
            self.cross = Cross(layer_spec.cross, weights, layer, self.place, self._eps)
        self.feed_forward = None
        # What the feed-forward part gets of x (T, D): always another array, as x is overwritten.
        self._normed: Callable[[FloatArray], FloatArray] = np.copy
        if layer_spec.feed_forward is not None:
            self.feed_forward = build_feed_forward(
                layer_spec.feed_forward, weights, layer, experts, self._eps
            )
            if layer_spec.residual.has_pre_norms:
                self._normed = _Norm(f"{prefix}.ffn_norm", weights, self._eps)
        scale = layer_spec.residual.scale
        self._branch_scale = None if scale == 1 else np.float32(scale)
        self._post_norm = weights.optional_vector(f"{prefix}.ffn_post_norm.weight")
        self._stream_scale = weights.optional_vector(f"{prefix}.stream_scale.weight")

    def __call__(
        self, x: FloatArray, segments: Sequence[Segment], rehearsal: DecoderRehearsal | None = None
    ) -> FloatArray:
        """X (T, D) after this layer; x itself is overwritten once its experts have run."""
        if self._mixer is not None:
            self._mixer.add_to(x, segments)
        if self.cross is not None:
            self.cross.add_to(x, segments)
        network = self.feed_forward
        if network is None:
            return self._scaled(x)
        normed = self._normed(x)
        if not isinstance(network, MoELayer):
            return self.join(x, network(normed))
        turn = network.begin(normed, x)
        if rehearsal is not None:
            rehearsal.begin(self, x, turn)
        return self.join(x, turn.run(rehearsal))

    def rehearse(
        self, x: FloatArray, segment: Segment
    ) -> tuple[Rehearsed | None, Callable[[FloatArray], FloatArray]]:
        """Take the one row x (1, D) to this layer's experts and leave no trace.

        What the layer wants of them, and what gives x after the layer from what they made; without experts
        None, and what gives x after the layer from anything.
        """
        if self._mixer is not None:
            self._mixer.rehearse(x, segment)
        if self.cross is not None:
            self.cross.add_to(x, (segment,))
        network = self.feed_forward
        if network is None:
            return None, lambda _: self._scaled(x)
        normed = self._normed(x)
        if not isinstance(network, MoELayer):
            return None, lambda _: self.join(x, network(normed))
        turn = network.begin(normed, x)
        return turn.rehearsed, lambda added: self.join(x, turn.complete(added))

    def join(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """X (T, D) after the layer, where its feed-forward part made y; both are overwritten."""
        if self._post_norm is not None:
            y = native.rms_norm(y, self._post_norm, self._eps)
        if self._branch_scale is not None:
            y *= self._branch_scale
        x += y
        return self._scaled(x)

    def _scaled(self, x: FloatArray) -> FloatArray:
        if self._stream_scale is not None:
            x *= self._stream_scale
        return x


class DecoderRehearsal:
    """Takes one row through the layers that follow, before all experts are there; see native.Rehearsal."""

    def __init__(self, blocks: Sequence[Block], segment: Segment) -> None:
        """``blocks`` are those of all layers; ``segment`` is that of the row alone."""
        self._blocks = blocks
        self._segment = segment
        self._complete: Callable[[FloatArray], FloatArray] | None = None

    def begin(self, waiting: Block, x: FloatArray, turn: MoETurn) -> None:
        """Start after the layer that waits, which got x (1, D): nothing is done until it is called.

        A rehearsal leaves x as it is.
        """
        self._waiting, self._x, self._turn = waiting, x, turn
        self._complete = None

    def __call__(self, added: FloatArray) -> Rehearsed | None:
        """See native.Rehearsal."""
        added = added.copy()
        if self._complete is None:
            self._ahead = iter(self._blocks[self._waiting.place + 1 :])
            x = self._waiting.join(self._x.copy(), self._turn.complete(added))
        else:
            x = self._complete(added)
        try:
            for block in self._ahead:
                rehearsed, self._complete = block.rehearse(x, self._segment)
                if rehearsed is not None:
                    return rehearsed
                x = self._complete(x)
        except OverflowError:  # of a state that lacks some experts; the layers' own runs will tell
            pass
        return None


class Decoder:
    """The model, or its decoder. One row's result has the same bits whatever else is in the step."""

    def __init__(self, spec: ModelSpec, weights: DenseWeights, experts: ExpertRunner) -> None:
        self._spec = spec
        self._embed = weights.matrix("embed.weight")
        self._head = self._embed if spec.has_tied_head else weights.matrix("head.weight")
        self._norm = _Norm("norm", weights, spec.norm_eps)
        self._head_bias = weights.optional_vector("head.bias")
        mixers = build_mixers(spec, weights)
        self._blocks = [
            Block(spec, weights, layer, experts, mixer)
            for layer, mixer in zip(spec.decoder_layers, mixers, strict=True)
        ]

    def forward(self, token_ids: NDArray[np.int32], state: SequenceState) -> FloatArray:
        """Hidden states (T, D) of the next T tokens of a text, after the last norm."""
        return self.forward_from(0, self.embed(token_ids), one_text(state, len(token_ids)))

    def step(self, token_ids: NDArray[np.int32], segments: Sequence[Segment]) -> FloatArray:
        """Hidden states (T, D), after the last norm, of rows of several texts, segment by segment."""
        return self.forward_from(0, self.embed(token_ids), segments)

    def embed(self, token_ids: NDArray[np.int32]) -> FloatArray:
        """What the first layer gets, (T, D)."""
        x = native.dequantize_rows(self._embed, token_ids)
        return x if self._spec.embed_scale == 1 else x * np.float32(self._spec.embed_scale)

    def forward_from(
        self,
        first: int,
        x: FloatArray,
        segments: Sequence[Segment],
        before: list[FloatArray] | None = None,
    ) -> FloatArray:
        """As ``step``, from the layer ``first`` on, which gets x (T, D); x is overwritten.

        What each layer gets is copied to ``before``. States of earlier layers stay as they are.
        """
        rehearsal = None
        if len(x) == 1:  # it takes one row; of several, the next layers need many experts anyway
            rehearsal = DecoderRehearsal(self._blocks, segments[0])
        try:
            for block in self._blocks[first:]:
                if before is not None:
                    before.append(x.copy())
                x = block(x, segments, rehearsal)
        except OverflowError as error:
            raise overflow_error(error) from error
        refuse_overflow(x)
        for segment in segments:
            segment.state.length += segment.num_rows
        return self._norm(x)

    def head(self, hidden: FloatArray) -> FloatArray:
        """Logits (T, V) of hidden states (T, D)."""
        scale, cap = self._spec.head_scale, self._spec.logit_cap
        logits = native.matmul(hidden if scale == 1 else hidden * np.float32(scale), self._head)
        if self._head_bias is not None:
            logits += self._head_bias
        refuse_not_finite(logits)
        if cap is None:
            return logits
        logits /= np.float32(cap)
        np.tanh(logits, out=logits)
        logits *= np.float32(cap)
        return logits

    def begin(self, encoded: FloatArray, state: SequenceState) -> None:
        """Start an answer to what the encoder made of a prompt, (T, D): nothing is written yet."""
        try:
            for block in self._blocks:
                assert block.cross is not None, "a model with an encoder looks at its states in every layer"
                block.cross.remember(encoded, state)
        except OverflowError as error:
            raise overflow_error(error) from error
        state.cross_length = len(encoded)
        state.rewind(0)


def build_mixers(spec: ModelSpec, weights: DenseWeights) -> Iterator[TokenMixer | None]:
    """The mixers of the decoder's layers; equal rotations are one object: angles are made once a step."""
    rotations: list[tuple[RopeSpec, Rotation]] = []

    def rotation_of(rope: RopeSpec | None) -> Rotation | None:
        if rope is None:
            return None
        found = next((rotation for known, rotation in rotations if known == rope), None)
        if found is None:
            found = Rotation(rope)
            rotations.append((rope, found))
        return found

    bias = None
    if spec.position_bias is not None:
        bias = DistanceBias(spec.position_bias, weights.vector("bias.weight"), spec.num_bias_heads)
    for place, layer in enumerate(spec.decoder_layers):
        layer_spec = spec.layers[layer]
        if layer_spec.mixer is None:
            yield None
            continue
        rotation, residual = rotation_of(layer_spec.rope), layer_spec.residual
        parts = (layer_spec.mixer, weights, layer, place, spec.norm_eps, rotation, bias)
        yield layer_spec.mixer.build(MixerParts(*parts, residual.has_post_norms, residual.scale))
