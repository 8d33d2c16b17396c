"""Full attention and routed experts in every layer: OLMoE, Qwen3-MoE, Mixtral."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from model_shapes.parts import Tensor, add_common, add_heads, attention, embedding, ends, experts, ones


@dataclass(frozen=True)
class Plain:
    """Full attention and routed experts in every layer: OLMoE, Qwen3-MoE, Mixtral."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    expert_width: int
    experts: int
    top_k: int
    vocab: int
    theta: float
    eps: float

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "ffn_norm"):
                yield ones(f"{prefix}.{name}.weight", self.width)
            if self.architecture != "llama":
                per_head = self.architecture == "qwen3moe"
                yield ones(f"{prefix}.attn_q_norm.weight", self.head_dim if per_head else q)
                yield ones(f"{prefix}.attn_k_norm.weight", self.head_dim if per_head else kv)
            yield from attention(prefix, self.width, q, kv)
            yield from experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
        yield from ends(self)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        add_common(writer, self, self.eps, self.experts, self.top_k)
        add_heads(writer, self.heads, self.kv_heads, self.head_dim)
        writer.add_rope_freq_base(self.theta)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_feed_forward_length(self.feed_forward)
        if self.architecture == "qwen3moe":
            writer.add_expert_feed_forward_length(self.expert_width)
