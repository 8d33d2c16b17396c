"""Latent attention, one leading dense layer, a shared expert; written as llama.cpp's "deepseek2"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from model_shapes.parts import (
    OUTPUT_GAIN,
    Tensor,
    add_common,
    embedding,
    ends,
    experts,
    network,
    ones,
)


@dataclass(frozen=True)
class Glm47Flash:
    """Latent attention, one leading dense layer, a shared expert; written as llama.cpp's "deepseek2"."""

    layers: int = 47
    width: int = 2048
    heads: int = 20
    query_rank: int = 768
    latent: int = 512
    nope: int = 192
    rope: int = 64
    value_dim: int = 256
    dense_width: int = 10240
    expert_width: int = 1536
    experts: int = 64
    top_k: int = 4
    vocab: int = 154880
    architecture: str = "deepseek2"

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        yield embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "ffn_norm"):
                yield ones(f"{prefix}.{name}.weight", self.width)
            yield from self._latent_attention(prefix)
            if layer == 0:
                yield from network(prefix, self.dense_width, self.width)
                continue
            yield from experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
            yield Tensor(f"{prefix}.exp_probs_b.bias", (self.experts,), value=0.0)
            yield from network(prefix, self.expert_width, self.width, "_shexp")
        yield from ends(self)

    def _latent_attention(self, prefix: str) -> Iterator[Tensor]:
        queries = self.heads * (self.nope + self.rope)
        yield Tensor(f"{prefix}.attn_q_a.weight", (self.query_rank, self.width), 1.0)
        yield ones(f"{prefix}.attn_q_a_norm.weight", self.query_rank)
        yield Tensor(f"{prefix}.attn_q_b.weight", (queries, self.query_rank), 1.0)
        yield Tensor(f"{prefix}.attn_kv_a_mqa.weight", (self.latent + self.rope, self.width), 1.0)
        yield ones(f"{prefix}.attn_kv_a_norm.weight", self.latent)
        yield Tensor(f"{prefix}.attn_k_b.weight", (self.heads, self.latent, self.nope), 1.0)
        yield Tensor(f"{prefix}.attn_v_b.weight", (self.heads, self.value_dim, self.latent), 1.0)
        yield Tensor(f"{prefix}.attn_output.weight", (self.width, self.heads * self.value_dim), OUTPUT_GAIN)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        add_common(writer, self, 1e-5, self.experts, self.top_k)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(1)
        writer.add_key_length(self.latent + self.rope)
        writer.add_value_length(self.latent)
        writer.add_key_length_mla(self.nope + self.rope)
        writer.add_value_length_mla(self.value_dim)
        writer.add_q_lora_rank(self.query_rank)
        writer.add_kv_lora_rank(self.latent)
        writer.add_rope_dimension_count(self.rope)
        writer.add_rope_freq_base(1e6)
        writer.add_feed_forward_length(self.dense_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_leading_dense_block_count(1)
        writer.add_expert_shared_count(1)
        writer.add_expert_weights_scale(1.8)
        writer.add_expert_weights_norm(True)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
