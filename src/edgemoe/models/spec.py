"""What a model is made of, as frozen facts. A family file fills these in; nothing else is read later.

Letters: D model width, F expert width, E experts, K chosen, V vocabulary, H query heads, G key/value
heads, C head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

ROW_MULTIPLE = 32  # what the packed formats ask of every row length


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding: ``kind`` is default, linear, dynamic, llama3 or yarn."""

    kind: str
    theta: float
    rotary_dim: int
    trained_context: int
    scaling: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PositionBiasSpec:
    """T5's relative positions (arXiv 1910.10683): a learnt value per head and bucket of distances is added to
    the scores. Encoder and decoder have a table each, which all of their layers share.
    """

    num_buckets: int
    max_distance: int


@dataclass(frozen=True)
class AttentionSpec:
    """Grouped-query attention of one layer; ``window`` 0 means unlimited."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: Literal["none", "head", "projection"] = "none"
    has_qkv_bias: bool = False
    has_o_bias: bool = False
    window: int = 0
    clip_qkv: float | None = None
    is_scaled: bool = True

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return float(self.head_dim**-0.5) if self.is_scaled else 1.0


@dataclass(frozen=True)
class RouterSpec:
    """How K of E experts are chosen and weighted; ``rule`` as in native.choose_experts.

    ``capacity`` tokens of a text may choose an expert; those after them pass it by. 0: all may.
    """

    num_experts: int
    top_k: int
    rule: str
    renormalize: bool
    has_bias: bool = False
    capacity: int = 0


@dataclass(frozen=True)
class ExpertSpec:
    """One expert: gate and up (F, D), down (D, F); without a gate the activation is that of up."""

    width: int
    activation: str
    is_gated: bool = True

    @property
    def projections(self) -> tuple[str, ...]:
        """The names of its matrices, in the order in which they are stored."""
        return ("gate", "up", "down") if self.is_gated else ("up", "down")


@dataclass(frozen=True)
class SharedExpertSpec:
    """An expert that every token uses, optionally weighted by a sigmoid gate."""

    width: int
    is_gated: bool


@dataclass(frozen=True)
class MoESpec:
    """A sparse feed-forward layer."""

    router: RouterSpec
    expert: ExpertSpec
    shared: SharedExpertSpec | None = None


@dataclass(frozen=True)
class MLPSpec:
    """A dense feed-forward layer."""

    width: int
    activation: str
    is_gated: bool = True


@dataclass(frozen=True)
class LayerSpec:
    """Attention, in some decoders attention to what the encoder made, then experts or a dense network."""

    attention: AttentionSpec
    feed_forward: MoESpec | MLPSpec
    cross: AttentionSpec | None = None


@dataclass(frozen=True)
class TensorSpec:
    """A non-expert tensor. "precise" ones (norms, biases, routers) stay in f32.

    ``source_shape`` is that of the checkpoint where it differs; the values have the same order.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["matrix", "precise"]
    source_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A whole model: a decoder, or an encoder whose layers come first and a decoder after it.

    Positions are either rotated or a bias. The head sees the hidden states times ``head_scale``.
    """

    family: str
    width: int
    vocab_size: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    rope: RopeSpec | None
    has_tied_head: bool
    max_context: int
    position_bias: PositionBiasSpec | None = None
    num_encoder_layers: int = 0
    head_scale: float = 1.0
    start_token_id: int = 0  # with an encoder: what every answer follows

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
        """Those of them that run for every token of an answer."""
        return tuple(i for i in self.moe_layers if i >= self.num_encoder_layers)

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

    def expert_shapes(self, layer: int) -> dict[str, tuple[int, int]]:
        """Shapes of the matrices of the routed experts of a layer: gate where there is one, up, down."""
        expert = self.moe(layer).expert
        raised, lowered = (expert.width, self.width), (self.width, expert.width)
        return {p: lowered if p == "down" else raised for p in expert.projections}

    def num_expert_weights(self, layer: int) -> int:
        """Weights of one routed expert of a layer."""
        return sum(rows * cols for rows, cols in self.expert_shapes(layer).values())

    def dense_tensors(self) -> tuple[TensorSpec, ...]:
        """All non-expert tensors under their canonical names."""
        found = [TensorSpec("embed.weight", (self.vocab_size, self.width), "matrix")]
        if self.has_encoder_embedding:
            found.append(TensorSpec("encoder_embed.weight", (self.vocab_size, self.width), "matrix"))
        for index, layer in enumerate(self.layers):
            prefix = f"layers.{index}"
            found += _attention_tensors(f"{prefix}.attention", layer.attention, self.width)
            if layer.cross is not None:
                found += _attention_tensors(f"{prefix}.cross", layer.cross, self.width)
            found += _feed_forward_tensors(prefix, layer.feed_forward, self.width)
            norms = ("attention_norm", "cross_norm", "ffn_norm")
            for norm in norms if layer.cross is not None else norms[::2]:
                found.append(TensorSpec(f"{prefix}.{norm}.weight", (self.width,), "precise"))
        if self.has_encoder:
            found.append(TensorSpec("encoder_norm.weight", (self.width,), "precise"))
        found += self._bias_tensors()
        found.append(TensorSpec("norm.weight", (self.width,), "precise"))
        if not self.has_tied_head:
            found.append(TensorSpec("head.weight", (self.vocab_size, self.width), "matrix"))
        return tuple(found)

    def _bias_tensors(self) -> Iterator[TensorSpec]:
        """Tables of position biases, flat: rows of packed matrices must be multiples of 32."""
        if self.position_bias is None:
            return
        shape = (self.position_bias.num_buckets, self.layers[0].attention.num_heads)
        for name in ("encoder_bias", "bias") if self.has_encoder else ("bias",):
            yield TensorSpec(f"{name}.weight", (shape[0] * shape[1],), "precise", shape)


def _attention_tensors(prefix: str, spec: AttentionSpec, width: int) -> Iterator[TensorSpec]:
    q_width, kv_width = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    for name, rows in (("q", q_width), ("k", kv_width), ("v", kv_width)):
        yield TensorSpec(f"{prefix}.{name}.weight", (rows, width), "matrix")
        if spec.has_qkv_bias:
            yield TensorSpec(f"{prefix}.{name}.bias", (rows,), "precise")
    yield TensorSpec(f"{prefix}.o.weight", (width, q_width), "matrix")
    if spec.has_o_bias:
        yield TensorSpec(f"{prefix}.o.bias", (width,), "precise")
    if spec.qk_norm != "none":
        per_head = spec.qk_norm == "head"
        for name, rows in (("q_norm", q_width), ("k_norm", kv_width)):
            shape = (spec.head_dim if per_head else rows,)
            yield TensorSpec(f"{prefix}.{name}.weight", shape, "precise")


def _feed_forward_tensors(prefix: str, spec: MoESpec | MLPSpec, width: int) -> Iterator[TensorSpec]:
    if isinstance(spec, MLPSpec):
        yield from _mlp_tensors(f"{prefix}.mlp", spec.width, width, spec.is_gated)
        return
    yield TensorSpec(f"{prefix}.router.weight", (spec.router.num_experts, width), "precise")
    if spec.router.has_bias:
        yield TensorSpec(f"{prefix}.router.bias", (spec.router.num_experts,), "precise")
    if spec.shared is not None:
        yield from _mlp_tensors(f"{prefix}.shared", spec.shared.width, width)
        if spec.shared.is_gated:
            yield TensorSpec(f"{prefix}.shared_gate.weight", (1, width), "precise")


def _mlp_tensors(prefix: str, inner: int, width: int, is_gated: bool = True) -> Iterator[TensorSpec]:
    if is_gated:
        yield TensorSpec(f"{prefix}.gate.weight", (inner, width), "matrix")
    yield TensorSpec(f"{prefix}.up.weight", (inner, width), "matrix")
    yield TensorSpec(f"{prefix}.down.weight", (width, inner), "matrix")
