"""Known models by their shapes: the tensors of their GGUF files, and the keys that describe them.

Published sizes, from the configurations of their checkpoints. What a tensor holds is said by how it acts:
rows whose product with a state of unit variance has a given gain, or one value everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import gguf
from gguf import GGMLQuantizationType as Type

# What attention and experts add to the residual stream: little, so that all layers see the token.
OUTPUT_GAIN = 0.1
_PARTS = ("gate", "up", "down")


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


def _ends(shape: Shape, norm: str = "output_norm", is_tied: bool = False) -> Iterator[Tensor]:
    yield _ones(f"{norm}.weight", shape.width)
    if not is_tied:
        yield Tensor("output.weight", (shape.vocab, shape.width), 1.0)


def _embedding(shape: Shape) -> Tensor:
    return Tensor("token_embd.weight", (shape.vocab, shape.width))


def _ones(name: str, *dims: int) -> Tensor:
    return Tensor(name, dims, value=1.0)


def _experts(
    prefix: str, experts: int, inner: int, width: int, gain: float, kind: Type | None = None
) -> Iterator[Tensor]:
    """The router and the stacked experts of a layer."""
    yield Tensor(f"{prefix}.ffn_gate_inp.weight", (experts, width))
    for part in _PARTS[:2]:
        yield Tensor(f"{prefix}.ffn_{part}_exps.weight", (experts, inner, width), 1.0, kind=kind)
    yield Tensor(f"{prefix}.ffn_down_exps.weight", (experts, width, inner), gain, kind=kind)


def _network(prefix: str, inner: int, width: int, suffix: str = "") -> Iterator[Tensor]:
    """A dense network, or a shared expert."""
    for part in _PARTS[:2]:
        yield Tensor(f"{prefix}.ffn_{part}{suffix}.weight", (inner, width), 1.0)
    yield Tensor(f"{prefix}.ffn_down{suffix}.weight", (width, inner), OUTPUT_GAIN)


def _attention(prefix: str, width: int, q: int, kv: int, out: int | None = None) -> Iterator[Tensor]:
    """Projections; ``out``: columns of the last, where they are not those of the first."""
    yield Tensor(f"{prefix}.attn_q.weight", (q, width), 1.0)
    yield Tensor(f"{prefix}.attn_k.weight", (kv, width), 1.0)
    yield Tensor(f"{prefix}.attn_v.weight", (kv, width), 1.0)
    yield Tensor(f"{prefix}.attn_output.weight", (width, out or q), OUTPUT_GAIN)


def _add_common(writer: gguf.GGUFWriter, shape: Shape, eps: float, experts: int, top_k: int) -> None:
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_layer_norm_rms_eps(eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(top_k)


def _add_heads(writer: gguf.GGUFWriter, heads: int, kv_heads: int | list[int], dim: int) -> None:
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)


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
        yield _embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "ffn_norm"):
                yield _ones(f"{prefix}.{name}.weight", self.width)
            if self.architecture != "llama":
                per_head = self.architecture == "qwen3moe"
                yield _ones(f"{prefix}.attn_q_norm.weight", self.head_dim if per_head else q)
                yield _ones(f"{prefix}.attn_k_norm.weight", self.head_dim if per_head else kv)
            yield from _attention(prefix, self.width, q, kv)
            yield from _experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
        yield from _ends(self)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        _add_common(writer, self, self.eps, self.experts, self.top_k)
        _add_heads(writer, self.heads, self.kv_heads, self.head_dim)
        writer.add_rope_freq_base(self.theta)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_feed_forward_length(self.feed_forward)
        if self.architecture == "qwen3moe":
            writer.add_expert_feed_forward_length(self.expert_width)


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
    architecture: str = "qwen35moe"

    def tensors(self, expert_gain: float) -> Iterator[Tensor]:
        """See Shape."""
        yield _embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "post_attention_norm"):
                yield _ones(f"{prefix}.{name}.weight", self.width)
            yield from self._delta_net(prefix) if (layer + 1) % 4 else self._full_attention(prefix)
            yield from _experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
            yield _ones(f"{prefix}.ffn_gate_inp_shexp.weight", self.width)
            yield from _network(prefix, self.expert_width, self.width, "_shexp")
        yield from _ends(self)

    def _full_attention(self, prefix: str) -> Iterator[Tensor]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for name in ("attn_q_norm", "attn_k_norm"):
            yield _ones(f"{prefix}.{name}.weight", self.head_dim)
        yield from _attention(prefix, self.width, 2 * q, kv, out=q)  # a gate beside each query

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
        yield _ones(f"{prefix}.ssm_norm.weight", self.delta_dim)
        yield Tensor(f"{prefix}.ssm_out.weight", (self.width, values), OUTPUT_GAIN)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        _add_common(writer, self, 1e-6, self.experts, self.top_k)
        _add_heads(writer, self.heads, self.kv_heads, self.head_dim)
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
        yield _embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "post_attention_norm"):
                yield _ones(f"{prefix}.{name}.weight", self.width)
            yield from _attention(prefix, self.width, q, kv)
            for name, rows in (("q", q), ("k", kv), ("v", kv), ("output", self.width)):
                yield Tensor(f"{prefix}.attn_{name}.bias", (rows,), value=0.0)
            yield Tensor(f"{prefix}.attn_sinks.weight", (self.heads,), value=0.0)
            yield from _experts(
                prefix, self.experts, self.expert_width, self.width, expert_gain, kind=Type.MXFP4
            )
            yield Tensor(f"{prefix}.ffn_gate_inp.bias", (self.experts,), value=0.0)
            for part in _PARTS:
                rows = self.width if part == "down" else self.expert_width
                yield Tensor(f"{prefix}.ffn_{part}_exps.bias", (self.experts, rows), value=0.0)
        yield from _ends(self)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        _add_common(writer, self, 1e-5, self.experts, self.top_k)
        _add_heads(writer, self.heads, self.kv_heads, self.head_dim)
        writer.add_feed_forward_length(self.expert_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_sliding_window(128)
        writer.add_rope_freq_base(150000.0)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(32.0)
        writer.add_rope_scaling_orig_ctx_len(4096)


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
        yield _embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "ffn_norm"):
                yield _ones(f"{prefix}.{name}.weight", self.width)
            yield from self._mixer(prefix, layer)
            if layer < self.dense_layers:
                yield from _network(prefix, self.dense_width, self.width)
            else:
                yield from _experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
                yield Tensor(f"{prefix}.exp_probs_b.bias", (self.experts,), value=0.0)
        yield from _ends(self, "token_embd_norm", is_tied=True)

    def _mixer(self, prefix: str, layer: int) -> Iterator[Tensor]:
        if self._is_attention(layer):
            for name in ("attn_q_norm", "attn_k_norm"):
                yield _ones(f"{prefix}.{name}.weight", self.head_dim)
            yield from _attention(
                prefix, self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim
            )
            return
        yield Tensor(f"{prefix}.shortconv.in_proj.weight", (3 * self.width, self.width), 1.0)
        yield Tensor(f"{prefix}.shortconv.conv.weight", (self.width, self.taps), value=0.5)
        yield Tensor(f"{prefix}.shortconv.out_proj.weight", (self.width, self.width), OUTPUT_GAIN)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        _add_common(writer, self, 1e-5, self.experts, self.top_k)
        heads = [self.kv_heads if self._is_attention(layer) else 0 for layer in range(self.layers)]
        _add_heads(writer, self.heads, heads, self.head_dim)
        writer.add_rope_freq_base(1e6)
        writer.add_feed_forward_length(self.dense_width)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_shortconv_l_cache(self.taps)
        writer.add_leading_dense_block_count(self.dense_layers)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


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
        yield _embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in (
                *("attn_norm", "post_attention_norm", "ffn_norm", "pre_ffw_norm_2"),
                *("post_ffw_norm_1", "post_ffw_norm_2", "post_ffw_norm"),
            ):
                yield _ones(f"{prefix}.{name}.weight", self.width)
            yield from self._attention(prefix, self._is_full(layer))
            yield from _network(prefix, self.dense_width, self.width)
            yield from _experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
            yield _ones(f"{prefix}.ffn_gate_inp.scale", self.width)
            yield _ones(f"{prefix}.ffn_down_exps.scale", self.experts)
            yield _ones(f"{prefix}.layer_output_scale.weight", 1)
        yield from _ends(self, is_tied=True)

    def _attention(self, prefix: str, is_full: bool) -> Iterator[Tensor]:
        dim, kv_heads = (
            (self.full_head_dim, self.full_kv_heads) if is_full else (self.head_dim, self.kv_heads)
        )
        for name in ("attn_q_norm", "attn_k_norm"):
            yield _ones(f"{prefix}.{name}.weight", dim)
        for tensor in _attention(prefix, self.width, self.heads * dim, kv_heads * dim):
            if not (is_full and tensor.name.endswith("attn_v.weight")):  # there values are keys
                yield tensor

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        is_sliding = [not self._is_full(layer) for layer in range(self.layers)]
        _add_common(writer, self, 1e-6, self.experts, self.top_k)
        heads = [self.kv_heads if sliding else self.full_kv_heads for sliding in is_sliding]
        _add_heads(writer, self.heads, heads, self.full_head_dim)
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
        yield _embedding(self)
        for layer in range(self.layers):
            prefix = f"blk.{layer}"
            for name in ("attn_norm", "ffn_norm"):
                yield _ones(f"{prefix}.{name}.weight", self.width)
            yield from self._latent_attention(prefix)
            if layer == 0:
                yield from _network(prefix, self.dense_width, self.width)
                continue
            yield from _experts(prefix, self.experts, self.expert_width, self.width, expert_gain)
            yield Tensor(f"{prefix}.exp_probs_b.bias", (self.experts,), value=0.0)
            yield from _network(prefix, self.expert_width, self.width, "_shexp")
        yield from _ends(self)

    def _latent_attention(self, prefix: str) -> Iterator[Tensor]:
        queries = self.heads * (self.nope + self.rope)
        yield Tensor(f"{prefix}.attn_q_a.weight", (self.query_rank, self.width), 1.0)
        yield _ones(f"{prefix}.attn_q_a_norm.weight", self.query_rank)
        yield Tensor(f"{prefix}.attn_q_b.weight", (queries, self.query_rank), 1.0)
        yield Tensor(f"{prefix}.attn_kv_a_mqa.weight", (self.latent + self.rope, self.width), 1.0)
        yield _ones(f"{prefix}.attn_kv_a_norm.weight", self.latent)
        yield Tensor(f"{prefix}.attn_k_b.weight", (self.heads, self.latent, self.nope), 1.0)
        yield Tensor(f"{prefix}.attn_v_b.weight", (self.heads, self.value_dim, self.latent), 1.0)
        yield Tensor(f"{prefix}.attn_output.weight", (self.width, self.heads * self.value_dim), OUTPUT_GAIN)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """See Shape."""
        _add_common(writer, self, 1e-5, self.experts, self.top_k)
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


SHAPES: dict[str, Shape] = {
    "olmoe-1b-7b": Plain("olmoe", 16, 2048, 16, 16, 128, 1024, 1024, 64, 8, 50304, 1e4, 1e-5),
    "qwen3-30b-a3b": Plain("qwen3moe", 48, 2048, 32, 4, 128, 6144, 768, 128, 8, 151936, 1e6, 1e-6),
    "mixtral-8x7b": Plain("llama", 32, 4096, 32, 8, 128, 14336, 14336, 8, 2, 32000, 1e6, 1e-5),
    "qwen3.6-35b-a3b": Qwen35(),
    "gpt-oss-20b": GptOss(),
    "gemma-4-26b-a4b": Gemma4(),
    "glm-4.7-flash": Glm47Flash(),
    "lfm2-8b-a1b": Lfm2(),
}
