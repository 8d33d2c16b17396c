"""Windows of 1024 and now and then all, in sizes of their own; a dense network beside the experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from model_shapes.parts import (
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
class Gemma4:
    """Windows of 1024 and now and then all, in sizes of their own; a dense network beside the experts."""

    layers: int = 30
    width: int = 2816
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 256
    full_kv_heads: int = 2
    full_head_dim: int = 512
    dense_width: int = 2112
    expert_width: int = 704
    experts: int = 128
    top_k: int = 8
    vocab: int = 262144
    architecture: str = "gemma4"

    def _is_full(self, layer: int) -> bool:
        return layer % 6 == 5 or layer == self.layers - 1

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        yield embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in (
                *("attn_norm", "post_attention_norm", "ffn_norm", "pre_ffw_norm_2"),
                *("post_ffw_norm_1", "post_ffw_norm_2", "post_ffw_norm"),
            ):
                yield ones(f"{prefix}.{name}.weight", self.width)
            yield from self._attention(prefix, self._is_full(layer))
            yield from network(prefix, self.dense_width, self.width)
            yield from experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
            yield ones(f"{prefix}.ffn_gate_inp.scale", self.width)
            yield ones(f"{prefix}.ffn_down_exps.scale", self.experts)
            yield ones(f"{prefix}.layer_output_scale.weight", 1)
        yield from ends(self, is_tied=True)

    def _attention(self, prefix: str, is_full: bool) -> Iterator[Tensor]:
        dim, kv_heads = (
            (self.full_head_dim, self.full_kv_heads) if is_full else (self.head_dim, self.kv_heads)
        )
        for name in ("attn_q_norm", "attn_k_norm"):
            yield ones(f"{prefix}.{name}.weight", dim)
        for tensor in attention(prefix, self.width, self.heads * dim, kv_heads * dim):
            if not (is_full and tensor.name.endswith("attn_v.weight")):  # there values are keys
                yield tensor

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        is_sliding = [not self._is_full(layer) for layer in range(self.layers)]
        add_common(writer, self, 1e-6, self.experts, self.top_k)
        heads = [self.kv_heads if sliding else self.full_kv_heads for sliding in is_sliding]
        add_heads(writer, self.heads, heads, self.full_head_dim)
        writer.add_key_length_swa(self.head_dim)
        writer.add_value_length_swa(self.head_dim)
        writer.add_rope_dimension_count(self.full_head_dim)
        writer.add_rope_dimension_count_swa(self.head_dim)
        writer.add_rope_freq_base(1e6)
        writer.add_rope_freq_base_swa(1e4)
        writer.add_sliding_window(1024)
        writer.add_sliding_window_pattern(is_sliding)
        writer.add_feed_forward_length(self.dense_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_final_logit_softcapping(30.0)
        writer.add_embedding_length_per_layer_input(0)
        writer.add_shared_kv_layers(0)
