"""A layer that predicts the token after the next one, as DeepSeek-V3 has it (arXiv 2412.19437, section 2.2).

It is given what the model made of a token and the embedding of the one after it, joins both and runs like any
layer; the model's own head reads what comes out. Fed with what it made itself it predicts further tokens.
Letters: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.models.decoder import Block, Decoder, build_mixers
from edgemoe.models.finite import overflow_error, refuse_overflow
from edgemoe.models.mixer_spec import filled_tensor
from edgemoe.models.moe import ExpertRunner
from edgemoe.models.segments import one_text
from edgemoe.models.spec import ModelSpec, MoESpec, TensorSpec
from edgemoe.models.state import SequenceState
from edgemoe.models.weights import DenseWeights
from edgemoe.native import FloatArray

# Tensors that it shares with the model.
_SHARED = ("embed.weight", "head.weight", "head.bias")


@dataclass(frozen=True)
class MtpSpec:
    """``model``: the layer alone, with the model's width and vocabulary, and with its own last norm.

    ``hands_on_normed``: what it predicts further tokens from has passed that norm.
    """

    model: ModelSpec
    hands_on_normed: bool

    def dense_tensors(self) -> Iterator[TensorSpec]:
        """Its non-expert tensors under their canonical names."""
        hidden_size, width = self.model.hidden_size, self.model.width
        yield TensorSpec("embed_norm.weight", (hidden_size,), "precise")
        yield TensorSpec("hidden_norm.weight", (hidden_size,), "precise")
        yield filled_tensor("join.weight", (hidden_size, 2 * width), (width, 2 * width))
        yield from (t for t in self.model.dense_tensors() if t.name not in _SHARED)


def mtp_spec(spec: ModelSpec, hands_on_normed: bool) -> MtpSpec | None:
    """That of a model whose layer for further tokens is like its last one with attention and experts."""
    likes = (s for s in reversed(spec.layers) if isinstance(s.feed_forward, MoESpec) and s.rope is not None)
    layer = next(likes, None)
    return None if layer is None else MtpSpec(replace(spec, layers=(layer,)), hands_on_normed)


class MtpLayer:
    """Used by one thread at a time. Its states are those of ``spec.model.new_state``."""

    def __init__(self, spec: MtpSpec, weights: DenseWeights, experts: ExpertRunner, decoder: Decoder) -> None:
        """``decoder`` is the model's, whose embedding and head are used."""
        self._spec = spec
        self._decoder = decoder
        self._eps = spec.model.norm_eps
        self._embed_norm = weights.vector("embed_norm.weight")
        self._hidden_norm = weights.vector("hidden_norm.weight")
        self._join = weights.matrix("join.weight")
        self._norm = weights.vector("norm.weight")
        mixer = next(build_mixers(spec.model, weights))
        self._block = Block(spec.model, weights, 0, experts, mixer)

    def step(
        self, token_ids: NDArray[np.int32], hidden: FloatArray, state: SequenceState
    ) -> tuple[FloatArray, FloatArray]:
        """Take in tokens, each with what the model made of the one before it, ``hidden`` (T, D).

        Logits (V,) of what comes after the last, and what to take in that token with, (1, D).
        """
        embedded = native.rms_norm(self._decoder.embed(token_ids), self._embed_norm, self._eps)
        before = native.rms_norm(hidden, self._hidden_norm, self._eps)
        x = native.matmul(np.concatenate([embedded, before], axis=1), self._join)
        try:
            x = self._block(x, one_text(state, len(token_ids)))
        except OverflowError as error:
            raise overflow_error(error) from error
        refuse_overflow(x)
        state.length += len(token_ids)
        last = x[-1:].copy()
        normed = native.rms_norm(last, self._norm, self._eps)
        logits: FloatArray = self._decoder.head(normed)[0]
        return logits, normed if self._spec.hands_on_normed else last
