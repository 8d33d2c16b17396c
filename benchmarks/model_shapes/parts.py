"""What models are made of: tensors, said by how they act, and parts that several models have.

A tensor holds rows whose product with a state of unit variance has a given gain, or one value everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import gguf
from gguf import GGMLQuantizationType as Type

# What attention and experts add to the residual stream: little, so that all layers see the token.
OUTPUT_GAIN = 0.1
PARTS = ("gate", "up", "down")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file. Neither ``gain`` nor ``value``: an embedding, or a router's matrix.

    ``gain``: of the product with a state of unit variance. ``value``: everywhere, in single precision.
    """

    name: str
    dims: tuple[int, ...]
    gain: float | None = None
    value: float | None = None
    kind: Type | None = None

    @property
    def is_router(self) -> bool:
        """Whether it chooses experts."""
        return self.name.endswith("ffn_gate_inp.weight")

    @property
    def stored_as(self) -> Type:
        """Its type in the file: 4.5 bits a weight where rows are whole blocks of 256, else 8.5."""
        if self.kind is not None:
            return self.kind
        if self.value is not None or self.is_router:
            return Type.F32
        return Type.Q4_K if self.dims[-1] % 256 == 0 else Type.Q8_0


class Shape(Protocol):
    """A model by its dimensions."""

    architecture: str
    layers: int
    width: int
    vocab: int

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """All tensors, in the order of the file."""
        ...

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """What describes the model."""
        ...


def ends(shape: Shape, norm: str = "output_norm", is_tied: bool = False) -> Iterator[Tensor]:
    """The last norm, and the head unless the embedding is it."""
    yield ones(f"{norm}.weight", shape.width)
    if not is_tied:
        yield Tensor("output.weight", (shape.vocab, shape.width), 1.0)


def embedding(shape: Shape) -> Tensor:
    """The embedding of tokens."""
    return Tensor("token_embd.weight", (shape.vocab, shape.width))


def ones(name: str, *dims: int) -> Tensor:
    """A norm, or a scale, that changes nothing."""
    return Tensor(name, dims, value=1.0)


def experts(
    prefix: str, experts: int, inner: int, width: int, gain: float, kind: Type | None = None
) -> Iterator[Tensor]:
    """The router and the stacked experts of a layer."""
    yield Tensor(f"{prefix}.ffn_gate_inp.weight", (experts, width))
    for part in PARTS[:2]:
        yield Tensor(f"{prefix}.ffn_{part}_exps.weight", (experts, inner, width), 1.0, kind=kind)
    yield Tensor(f"{prefix}.ffn_down_exps.weight", (experts, width, inner), gain, kind=kind)


def network(prefix: str, inner: int, width: int, suffix: str = "") -> Iterator[Tensor]:
    """A dense network, or a shared expert."""
    for part in PARTS[:2]:
        yield Tensor(f"{prefix}.ffn_{part}{suffix}.weight", (inner, width), 1.0)
    yield Tensor(f"{prefix}.ffn_down{suffix}.weight", (width, inner), OUTPUT_GAIN)


def attention(prefix: str, width: int, q: int, kv: int, out: int | None = None) -> Iterator[Tensor]:
    """Projections; ``out``: columns of the last, where they are not those of the first."""
    yield Tensor(f"{prefix}.attn_q.weight", (q, width), 1.0)
    yield Tensor(f"{prefix}.attn_k.weight", (kv, width), 1.0)
    yield Tensor(f"{prefix}.attn_v.weight", (kv, width), 1.0)
    yield Tensor(f"{prefix}.attn_output.weight", (width, out or q), OUTPUT_GAIN)


def add_common(writer: gguf.GGUFWriter, shape: Shape, eps: float, experts: int, top_k: int) -> None:
    """Keys that every model has."""
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_layer_norm_rms_eps(eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(top_k)


def add_heads(writer: gguf.GGUFWriter, heads: int, kv_heads: int | list[int], dim: int) -> None:
    """Keys of attention with heads of one size."""
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
