"""Attention with sinks, windows in every other layer, experts of MXFP4 with biases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf
from gguf import GGMLQuantizationType as Type

from model_shapes.parts import PARTS, Tensor, add_common, add_heads, attention, embedding, ends, experts, ones


@dataclass(frozen=True)
class GptOss:
    """Attention with sinks, windows in every other layer, experts of MXFP4 with biases."""

    layers: int = 24
    width: int = 2880
    heads: int = 64
    kv_heads: int = 8
    head_dim: int = 64
    expert_width: int = 2880
    experts: int = 32
    top_k: int = 4
    vocab: int = 201088
    architecture: str = "gpt-oss"

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "post_attention_norm"):
                yield ones(f"{prefix}.{name}.weight", self.width)
            yield from attention(prefix, self.width, q, kv)
            for name, rows in (("q", q), ("k", kv), ("v", kv), ("output", self.width)):
                yield Tensor(f"{prefix}.attn_{name}.bias", (rows,), value=0.0)
            yield Tensor(f"{prefix}.attn_sinks.weight", (self.heads,), value=0.0)
            yield from experts(
                prefix, self.experts, self.expert_width, self.width, expert_gain, kind=Type.MXFP4
            )
            yield Tensor(f"{prefix}.ffn_gate_inp.bias", (self.experts,), value=0.0)
            for part in PARTS:
                rows = self.width if part == "down" else self.expert_width
                yield Tensor(f"{prefix}.ffn_{part}_exps.bias", (self.experts, rows), value=0.0)
        yield from ends(self)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        add_common(writer, self, 1e-5, self.experts, self.top_k)
        add_heads(writer, self.heads, self.kv_heads, self.head_dim)
        writer.add_feed_forward_length(self.expert_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_sliding_window(128)
        writer.add_rope_freq_base(150000.0)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(32.0)
        writer.add_rope_scaling_orig_ctx_len(4096)
