"""What a model is made of, as frozen facts. A family file fills these in; nothing else is read later.

What a token mixer is made of stands with it in ``mixers/``, a layer's other part in ``feed_forward_spec.py``.
Letters: D model width, F expert width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgemoe.models.feed_forward_spec import ExpertSpec, MLPSpec, MoESpec, RouterSpec, SharedExpertSpec
from edgemoe.models.layer_state import Slots, StateSize
from edgemoe.models.mixer_spec import (
    MixerSpec,
    PositionBiasSpec,
    RopeSpec,
    TensorSpec,
    filled,
    filled_up,
)
from edgemoe.models.mixers.attention import AttentionSpec
from edgemoe.models.state import SequenceState
from edgemoe.native import PageFile, TextPages

__all__ = [
    "AttentionSpec",
    "ExpertSpec",
    "LayerSpec",
    "MLPSpec",
    "MixerSpec",
    "MoESpec",
    "ModelSpec",
    "PositionBiasSpec",
    "ResidualSpec",
    "RopeSpec",
    "RouterSpec",
    "SharedExpertSpec",
    "TensorSpec",
]

# Tokens of a text that is longer than any window.
_LONG_TEXT = 1 << 20


@dataclass(frozen=True)
class ResidualSpec:
    """How what a part of a layer makes, y, joins the residual stream: x + ``scale`` y.

    With post-norms y passes a norm first. With a stream scale the stream is multiplied by a learnt number
    after the layer. Without pre-norms parts get the stream as it is.
    """

    scale: float = 1.0
    has_pre_norms: bool = True
    has_post_norms: bool = False
    has_stream_scale: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """A token mixer, in some decoders a look at what the encoder made, then experts or a dense network.

    Mixer or feed-forward part may be missing. A decoder with ``cross`` has it in every layer.
    """

    mixer: MixerSpec | None
    feed_forward: MoESpec | MLPSpec | None
    cross: AttentionSpec | None = None
    residual: ResidualSpec = ResidualSpec()

    @property
    def rope(self) -> RopeSpec | None:
        """The rotation of its mixer, if that has one."""
        return getattr(self.mixer, "rope", None)

    def tensors(
        self, prefix: str, width: int, hidden_size: int, has_layer_norms: bool
    ) -> Iterator[TensorSpec]:
        """Its tensors, but the experts' matrices; their names begin with ``prefix``.

        Norms have ``hidden_size`` entries, rows of matrices ``width``. ``has_layer_norms`` as in ModelSpec.
        """
        if self.mixer is not None:
            yield from self.mixer.tensors(prefix, width)
        if self.cross is not None:
            yield from self.cross.tensors_of(f"{prefix}.cross", width)
        if self.feed_forward is not None:
            yield from self.feed_forward.tensors(prefix, width, hidden_size)
        for norm in self._norms():
            yield TensorSpec(f"{prefix}.{norm}.weight", (hidden_size,), "precise")
            if has_layer_norms:
                yield TensorSpec(f"{prefix}.{norm}.bias", (hidden_size,), "precise")
        if self.residual.has_stream_scale:
            yield TensorSpec(f"{prefix}.stream_scale.weight", (1,), "precise")

    def _norms(self) -> Iterator[str]:
        """The norms around its parts."""
        has_mixer, has_network = self.mixer is not None, self.feed_forward is not None
        pre, post = self.residual.has_pre_norms, self.residual.has_post_norms
        norms = {
            "attention_norm": has_mixer and pre,
            "mixer_post_norm": has_mixer and post,
            "cross_norm": self.cross is not None,
            "ffn_norm": has_network and pre,
            "ffn_post_norm": has_network and post,
        }
        return (norm for norm, is_there in norms.items() if is_there)

    def working_bytes(self, num_rows: int, num_keys: int, width: int) -> int:
        """Most bytes that a step of so many rows takes at one time besides the residual stream: its parts run
        one after the other. A row sees up to ``num_keys`` tokens.
        """
        mixer = 0 if self.mixer is None else self.mixer.working_bytes(num_rows, num_keys, width)
        network = 0 if self.feed_forward is None else self.feed_forward.working_bytes(num_rows, width)
        return max(mixer, network)


@dataclass(frozen=True)
class ModelSpec:
    """A whole model: a decoder, or an encoder whose layers come first and a decoder after it.

    Positions are rotated by the mixers or a bias. The head sees the hidden states times ``head_scale``.
    """

    family: str
    hidden_size: int  # entries of a token's state, which norms are of; see ``width``
    vocab_size: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    has_tied_head: bool
    max_context: int
    position_bias: PositionBiasSpec | None = None
    num_encoder_layers: int = 0
    head_scale: float = 1.0
    has_layer_norms: bool = False  # norms around attention, experts and head are of mean and variance
    has_head_bias: bool = False
    start_token_id: int = 0  # with an encoder: what every answer follows
    embed_scale: float = 1.0  # of what the first layer gets
    logit_cap: float | None = None  # logits z become cap tanh(z / cap)

    @property
    def width(self) -> int:
        """D: ``hidden_size`` rounded up to what packed rows take; the entries behind it are 0."""
        return filled(self.hidden_size)

    @property
    def has_encoder(self) -> bool:
        """Whether prompts go through an encoder of their own."""
        return self.num_encoder_layers > 0

    @property
    def has_encoder_embedding(self) -> bool:
        """Whether encoder and decoder have embeddings of their own: where the head has one too."""
        return self.has_encoder and not self.has_tied_head

    @property
    def decoder_layers(self) -> range:
        """Indices of the layers that run for every token of an answer."""
        return range(self.num_encoder_layers, len(self.layers))

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers with experts."""
        return tuple(i for i, s in enumerate(self.layers) if isinstance(s.feed_forward, MoESpec))

    @property
    def decoder_moe_layers(self) -> tuple[int, ...]:
        """Indices of the decoder's layers with experts, which run for every token of an answer."""
        return tuple(i for i in self.moe_layers if i >= self.num_encoder_layers)

    @property
    def most_chosen(self) -> int:
        """Experts that one token uses in a layer, of all layers the most."""
        return max(self.moe(layer).router.top_k for layer in self.moe_layers)

    def moe(self, layer: int) -> MoESpec:
        """The feed-forward spec of a layer that has experts."""
        feed_forward = self.layers[layer].feed_forward
        assert isinstance(feed_forward, MoESpec), f"layer {layer} has no experts"
        return feed_forward

    def experts(self) -> Iterator[tuple[int, int]]:
        """(layer, expert) of every routed expert, in order."""
        for layer in self.moe_layers:
            for expert in range(self.moe(layer).router.num_experts):
                yield layer, expert

    def expert_sizes(self, layer: int) -> tuple[int, int]:
        """(D, F) of a layer's routed experts: the length of what one gets and gives, and its own width, both
        filled up to what packed rows take.
        """
        moe = self.moe(layer)
        return filled(moe.latent_width) or self.width, filled(moe.expert.width)

    def expert_shapes(self, layer: int) -> dict[str, tuple[int, int]]:
        """Shapes of the matrices of the routed experts of a layer: gate where there is one, up, down."""
        return self._expert_shapes(layer, *self.expert_sizes(layer))

    def stored_expert_shapes(self, layer: int) -> dict[str, tuple[int, int]]:
        """Their shapes in checkpoints, before they are filled up."""
        moe = self.moe(layer)
        return self._expert_shapes(layer, moe.latent_width or self.hidden_size, moe.expert.width)

    def _expert_shapes(self, layer: int, outer: int, inner: int) -> dict[str, tuple[int, int]]:
        projections = self.moe(layer).expert.projections
        return {p: (outer, inner) if p == "down" else (inner, outer) for p in projections}

    def num_expert_weights(self, layer: int) -> int:
        """Weights of one routed expert of a layer."""
        return sum(rows * cols for rows, cols in self.expert_shapes(layer).values())

    def dense_tensors(self) -> tuple[TensorSpec, ...]:
        """All non-expert tensors under their canonical names; norms have the length of ``hidden_size``."""
        return tuple(filled_up(self._dense_tensors(self.hidden_size), self._dense_tensors(self.width)))

    def _dense_tensors(self, width: int) -> list[TensorSpec]:
        found = [TensorSpec("embed.weight", (self.vocab_size, width), "matrix")]
        if self.has_encoder_embedding:
            found.append(TensorSpec("encoder_embed.weight", (self.vocab_size, width), "matrix"))
        for index, layer in enumerate(self.layers):
            found += layer.tensors(f"layers.{index}", width, self.hidden_size, self.has_layer_norms)
        if self.has_encoder:
            found.append(TensorSpec("encoder_norm.weight", (self.hidden_size,), "precise"))
        found += self._bias_tensors()
        found.append(TensorSpec("norm.weight", (self.hidden_size,), "precise"))
        if self.has_layer_norms:
            found.append(TensorSpec("norm.bias", (self.hidden_size,), "precise"))
        if self.has_head_bias:
            found.append(TensorSpec("head.bias", (self.vocab_size,), "precise"))
        if not self.has_tied_head:
            found.append(TensorSpec("head.weight", (self.vocab_size, width), "matrix"))
        return found

    @property
    def num_bias_heads(self) -> int:
        """Heads that a position bias has values for: those of every layer."""
        attention = self.layers[0].mixer
        assert isinstance(attention, AttentionSpec), "a position bias is of attention"
        return attention.num_heads

    def new_state(
        self, num_slots: int, kv_format: str = "f16", file: PageFile | None = None
    ) -> SequenceState:
        """What the decoder keeps of a new text of up to ``num_slots`` tokens.

        States of one ``file`` share the pages of a common beginning; without one they copy it.
        """
        pages = None if file is None else TextPages(file)
        size = StateSize(num_slots, kv_format)
        paged = replace(size, pages=pages)
        layers = [self.layers[i] for i in self.decoder_layers]
        return SequenceState(
            [None if layer.mixer is None else layer.mixer.new_state(paged) for layer in layers],
            [
                None if s.cross is None else Slots(s.cross.num_kv_heads, s.cross.head_dim, size)
                for s in layers
            ],
            num_slots,
            pages,
        )

    def state_num_bytes(self, num_slots: int, kv_format: str = "f16", num_used: int | None = None) -> int:
        """What ``new_state`` takes; of a text of no more than ``num_used`` tokens, if that is given."""
        size = StateSize(num_slots, kv_format, num_used=num_used)
        layers = [self.layers[i] for i in self.decoder_layers]
        parts = [part for layer in layers for part in (layer.mixer, layer.cross) if part is not None]
        return sum(part.state_num_bytes(size) for part in parts)

    def text_num_bytes(self, kv_format: str = "f16") -> tuple[int, int]:
        """What a long text takes: bytes for each of its tokens, and for all of it besides (the last tokens of
        windows, states of recurrent layers).
        """
        whole = self.state_num_bytes(_LONG_TEXT, kv_format)
        per_token = (self.state_num_bytes(2 * _LONG_TEXT, kv_format) - whole) // _LONG_TEXT
        return per_token, whole - per_token * _LONG_TEXT

    def _bias_tensors(self) -> Iterator[TensorSpec]:
        """Tables of position biases, flat: rows of packed matrices must be multiples of 32."""
        if self.position_bias is None:
            return
        shape = (self.position_bias.num_buckets, self.num_bias_heads)
        for name in ("encoder_bias", "bias") if self.has_encoder else ("bias",):
            yield TensorSpec(f"{name}.weight", (shape[0] * shape[1],), "precise", shape)
