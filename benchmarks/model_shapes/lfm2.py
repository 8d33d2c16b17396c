"""Gated short convolutions, attention now and then, leading dense layers: LFM2-8B-A1B."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from model_shapes.parts import (
    OUTPUT_GAIN,
    Tensor,
    add_common,
    add_heads,
    attention,
    embedding,
    ends,
    experts,
    network,
    ones,
)


@dataclass(frozen=True)
class Lfm2:
    """Gated short convolutions, attention now and then, leading dense layers: LFM2-8B-A1B."""

    layers: int = 24
    width: int = 2048
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 64
    taps: int = 3
    dense_layers: int = 2
    dense_width: int = 7168
    expert_width: int = 1792
    experts: int = 32
    top_k: int = 4
    vocab: int = 65536
    architecture: str = "lfm2moe"

    def _is_attention(self, layer: int) -> bool:
        return layer in (2, 6, 10, 14, 18, 21)

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        yield embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "ffn_norm"):
                yield ones(f"{prefix}.{name}.weight", self.width)
            yield from self._mixer(prefix, layer)
            if layer < self.dense_layers:
                yield from network(prefix, self.dense_width, self.width)
            else:
                yield from experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
                yield Tensor(f"{prefix}.exp_probs_b.bias", (self.experts,), value=0.0)
        yield from ends(self, "token_embd_norm", is_tied=True)

    def _mixer(self, prefix: str, layer: int) -> Iterator[Tensor]:
        if self._is_attention(layer):
            for name in ("attn_q_norm", "attn_k_norm"):
                yield ones(f"{prefix}.{name}.weight", self.head_dim)
            yield from attention(
                prefix, self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim
            )
            return
        yield Tensor(f"{prefix}.shortconv.in_proj.weight", (3 * self.width, self.width), 1.0)
        yield Tensor(f"{prefix}.shortconv.conv.weight", (self.width, self.taps), value=0.5)
        yield Tensor(f"{prefix}.shortconv.out_proj.weight", (self.width, self.width), OUTPUT_GAIN)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        add_common(writer, self, 1e-5, self.experts, self.top_k)
        heads = [self.kv_heads if self._is_attention(layer) else 0 for layer in range(self.layers)]
        add_heads(writer, self.heads, heads, self.head_dim)
        writer.add_rope_freq_base(1e6)
        writer.add_feed_forward_length(self.dense_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_shortconv_l_cache(self.taps)
        writer.add_leading_dense_block_count(self.dense_layers)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
