"""What a decoder is made of, as frozen facts. A family file fills these in; nothing else is read later.

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

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return float(self.head_dim**-0.5)


@dataclass(frozen=True)
class RouterSpec:
    """How K of E experts are chosen and weighted; ``rule`` as in native.route."""

    num_experts: int
    top_k: int
    rule: str
    renormalize: bool


@dataclass(frozen=True)
class ExpertSpec:
    """One expert: gate and up (F, D), down (D, F)."""

    width: int
    activation: str


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


@dataclass(frozen=True)
class LayerSpec:
    """Attention, then either experts or a dense network."""

    attention: AttentionSpec
    feed_forward: MoESpec | MLPSpec


@dataclass(frozen=True)
class TensorSpec:
    """A non-expert tensor. "precise" ones (norms, biases, routers) stay in f32."""

    name: str
    shape: tuple[int, ...]
    kind: Literal["matrix", "precise"]


@dataclass(frozen=True)
class ModelSpec:
    """A whole decoder."""

    family: str
    width: int
    vocab_size: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    rope: RopeSpec
    has_tied_head: bool
    max_context: int

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers with experts."""
        return tuple(i for i, s in enumerate(self.layers) if isinstance(s.feed_forward, MoESpec))

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
        """Shapes of gate, up and down of the routed experts of a layer."""
        width = self.moe(layer).expert.width
        return {"gate": (width, self.width), "up": (width, self.width), "down": (self.width, width)}

    def dense_tensors(self) -> tuple[TensorSpec, ...]:
        """All non-expert tensors under their canonical names."""
        found = [TensorSpec("embed.weight", (self.vocab_size, self.width), "matrix")]
        for index, layer in enumerate(self.layers):
            prefix = f"layers.{index}"
            found += _attention_tensors(f"{prefix}.attention", layer.attention, self.width)
            found += _feed_forward_tensors(prefix, layer.feed_forward, self.width)
            for norm in ("attention_norm", "ffn_norm"):
                found.append(TensorSpec(f"{prefix}.{norm}.weight", (self.width,), "precise"))
        found.append(TensorSpec("norm.weight", (self.width,), "precise"))
        if not self.has_tied_head:
            found.append(TensorSpec("head.weight", (self.vocab_size, self.width), "matrix"))
        return tuple(found)


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
        yield from _gated_tensors(f"{prefix}.mlp", spec.width, width)
        return
    yield TensorSpec(f"{prefix}.router.weight", (spec.router.num_experts, width), "precise")
    if spec.shared is not None:
        yield from _gated_tensors(f"{prefix}.shared", spec.shared.width, width)
        if spec.shared.is_gated:
            yield TensorSpec(f"{prefix}.shared_gate.weight", (1, width), "precise")


def _gated_tensors(prefix: str, inner: int, width: int) -> Iterator[TensorSpec]:
    for name, shape in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
        yield TensorSpec(f"{prefix}.{name}.weight", shape, "matrix")
