"""Three gated delta nets, then gated attention, again and again; a shared expert: Qwen3.5 and 3.6."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
class Qwen35:
    """Three gated delta nets, then gated attention, again and again; a shared expert: Qwen3.5 and 3.6."""

    layers: int = 40
    width: int = 2048
    heads: int = 16
    kv_heads: int = 2
    head_dim: int = 256
    key_heads: int = 16
    value_heads: int = 32
    delta_dim: int = 128
    taps: int = 4
    expert_width: int = 512
    experts: int = 256
    top_k: int = 8
    vocab: int = 248320
    has_mtp: bool = False  # a layer for further tokens behind all others
    architecture: str = "qwen35moe"

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        yield embedding(self)
        for layer in range(self.layers):
            yield from self._layer(f"blk.{layer}", expert_gain, is_delta=(layer + 1) % 4 > 0)
        if self.has_mtp:
            prefix = f"blk.{self.layers}"
            yield from self._layer(prefix, expert_gain, is_delta=False)
            for name in ("enorm", "hnorm", "shared_head_norm"):
                yield ones(f"{prefix}.nextn.{name}.weight", self.width)
            yield Tensor(f"{prefix}.nextn.eh_proj.weight", (self.width, 2 * self.width), 1.0)
        yield from ends(self)

    def _layer(self, prefix: str, expert_gain: float, *, is_delta: bool) -> Iterator[Tensor]:
        for name in ("attn_norm", "post_attention_norm"):
            yield ones(f"{prefix}.{name}.weight", self.width)
        yield from self._delta_net(prefix) if is_delta else self._full_attention(prefix)
        yield from experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
        yield ones(f"{prefix}.ffn_gate_inp_shexp.weight", self.width)
        yield from network(prefix, self.expert_width, self.width, "_shexp")

    def _full_attention(self, prefix: str) -> Iterator[Tensor]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for name in ("attn_q_norm", "attn_k_norm"):
            yield ones(f"{prefix}.{name}.weight", self.head_dim)
        yield from attention(prefix, self.width, 2 * q, kv, out=q)  # a gate beside each query

    def _delta_net(self, prefix: str) -> Iterator[Tensor]:
        values = self.value_heads * self.delta_dim
        rows = 2 * self.key_heads * self.delta_dim + values
        yield Tensor(f"{prefix}.attn_qkv.weight", (rows, self.width), 1.0)
        yield Tensor(f"{prefix}.attn_gate.weight", (values, self.width), 1.0)
        yield Tensor(f"{prefix}.ssm_conv1d.weight", (rows, self.taps), value=0.5)
        yield Tensor(f"{prefix}.ssm_dt.bias", (self.value_heads,), value=0.0)
        yield Tensor(f"{prefix}.ssm_a", (self.value_heads,), value=-1.0)
        for name in ("alpha", "beta"):
            yield Tensor(f"{prefix}.ssm_{name}.weight", (self.value_heads, self.width), 1.0)
        yield ones(f"{prefix}.ssm_norm.weight", self.delta_dim)
        yield Tensor(f"{prefix}.ssm_out.weight", (self.width, values), OUTPUT_GAIN)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        num_mtp = int(self.has_mtp)
        add_common(writer, replace(self, layers=self.layers + num_mtp), 1e-6, self.experts, self.top_k)
        if num_mtp:
            writer.add_nextn_predict_layers(num_mtp)
        add_heads(writer, self.heads, self.kv_heads, self.head_dim)
        writer.add_rope_freq_base(1e7)
        writer.add_rope_dimension_count(self.head_dim // 4)
        writer.add_rope_dimension_sections([11, 11, 10, 0])
        writer.add_feed_forward_length(self.expert_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_expert_shared_feed_forward_length(self.expert_width)
        writer.add_ssm_conv_kernel(self.taps)
        writer.add_ssm_state_size(self.delta_dim)
        writer.add_ssm_group_count(self.key_heads)
        writer.add_ssm_time_step_rank(self.value_heads)
        writer.add_ssm_inner_size(self.value_heads * self.delta_dim)
        writer.add_full_attention_interval(4)
