"""Writes a GGUF file of a known model's shape with random weights whose routing is like a real model's.

    python benchmarks/make_model.py --like olmoe-1b-7b olmoe.gguf
    python benchmarks/make_model.py --like qwen3-30b-a3b --layers 12 qwen-12.gguf

Nothing larger than one tensor is ever held in memory. Matrices are Q4_K (4.5 bits per weight), quantised by
ggml itself; rows are drawn from a pool, because speed does not depend on values, but routing does:

* An embedding is the sum of a part that all tokens share (some experts are popular), a part that the tokens
  of a topic share (neighbours in a text choose alike) and a part of its own; routers are plain Gaussian.
* ``token_chain`` draws texts that stay with a topic for a while.

The shares are set so that caching per layer meets what is published for OLMoE-1B-7B: with 24 of 64 experts
kept, LRU hits 68 % and Belady's policy 84 % of the uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import gguf
import numpy as np
from ggml import find_ggml
from gguf import GGMLQuantizationType as Type
from gguf_vocabulary import add_tokenizer

# Tokens above have rows in the embedding, but no text of ours contains them.
USED_TOKENS = 4096
NUM_TOPICS = 16
TOPIC_STAYS = 0.9  # probability that the next token is of the same topic
# Standard deviations of the parts of an embedding; their squares sum to 1.
SHARED, TOPIC = 0.40, 0.45
OWN = (1 - SHARED**2 - TOPIC**2) ** 0.5
ROUTER_SPREAD = 2.0  # standard deviation of the router's logits
# What attention and experts add to the residual stream: little, so that all layers see the token.
OUTPUT_GAIN = 0.1
_POOL_ROWS = 2048
_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model, in the letters of its GGUF keys."""

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


SHAPES = {
    "olmoe-1b-7b": Shape("olmoe", 16, 2048, 16, 16, 128, 1024, 1024, 64, 8, 50304, 1e4, 1e-5),
    "qwen3-30b-a3b": Shape("qwen3moe", 48, 2048, 32, 4, 128, 6144, 768, 128, 8, 151936, 1e6, 1e-6),
    "mixtral-8x7b": Shape("llama", 32, 4096, 32, 8, 128, 14336, 14336, 8, 2, 32000, 1e6, 1e-5),
}


def token_chain(num_tokens: int, seed: int) -> list[int]:
    """Token ids of a made-up text: topics last a while, words of a topic follow Zipf's law."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, USED_TOKENS // NUM_TOPICS + 1)
    words = rng.choice(len(weights), size=num_tokens, p=weights / weights.sum())
    changes = rng.random(num_tokens) > TOPIC_STAYS
    topics = rng.integers(NUM_TOPICS, size=num_tokens)
    topic, ids = int(topics[0]), []
    for word, drawn, is_new in zip(words.tolist(), topics.tolist(), changes.tolist(), strict=True):
        topic = drawn if is_new else topic
        ids.append(word * NUM_TOPICS + topic)
    return ids


class RowPool:
    """Quantised Gaussian rows, drawn again and again."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pools: dict[tuple[int, float], np.ndarray] = {}
        ggml = find_ggml()
        if ggml is None:
            sys.exit("make_model.py: quantises with llama.cpp's own library: pip install llama-cpp-python")
        self._ggml = ggml

    def quantize(self, rows: np.ndarray) -> np.ndarray:
        """Float rows as Q4_K, by ggml."""
        return self._ggml.quantize(
            np.ascontiguousarray(rows, np.float32), Type.Q4_K, rows.shape[1] // 256 * 144
        )

    def draw(self, num_rows: int, cols: int, gain: float) -> np.ndarray:
        """Packed rows whose product with a state of unit variance has the variance ``gain`` squared."""
        if (cols, gain) not in self._pools:
            spread = gain / cols**0.5
            self._pools[cols, gain] = self.quantize(self._rng.normal(0, spread, (_POOL_ROWS, cols)))
        return self._pools[cols, gain][self._rng.integers(_POOL_ROWS, size=num_rows)]


def tensors(
    shape: Shape, expert_gain: float = OUTPUT_GAIN
) -> Iterator[tuple[str, tuple[int, ...], float | None]]:
    """Name, shape and gain of every tensor; gain None: not drawn from the pool."""
    width, q, kv = shape.width, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (shape.vocab, width), None
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            yield f"{prefix}.{name}.weight", (width,), None
        if shape.architecture != "llama":
            per_head = shape.architecture == "qwen3moe"
            yield f"{prefix}.attn_q_norm.weight", (shape.head_dim if per_head else q,), None
            yield f"{prefix}.attn_k_norm.weight", (shape.head_dim if per_head else kv,), None
        yield f"{prefix}.attn_q.weight", (q, width), 1.0
        yield f"{prefix}.attn_k.weight", (kv, width), 1.0
        yield f"{prefix}.attn_v.weight", (kv, width), 1.0
        yield f"{prefix}.attn_output.weight", (width, q), OUTPUT_GAIN
        yield f"{prefix}.ffn_gate_inp.weight", (shape.experts, width), None
        for name in ("gate", "up"):
            yield f"{prefix}.ffn_{name}_exps.weight", (shape.experts, shape.expert_width, width), 1.0
        yield f"{prefix}.ffn_down_exps.weight", (shape.experts, width, shape.expert_width), expert_gain
    yield "output_norm.weight", (width,), None
    yield "output.weight", (shape.vocab, width), 1.0


def write_model(path: Path, shape: Shape, seed: int = 0, expert_gain: float = OUTPUT_GAIN) -> None:
    """Write the file; shows progress."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    _add_metadata(writer, shape)
    add_tokenizer(writer, Path(str(files("edgemoe") / "demo_store")), shape.vocab)
    for name, dims, _ in tensors(shape):
        kind = Type.F32 if len(dims) == 1 or "gate_inp" in name else Type.Q4_K
        stored = gguf.quant_shape_to_byte_shape(dims, kind) if kind != Type.F32 else dims
        item = np.dtype(np.uint8 if kind != Type.F32 else np.float32)
        writer.add_tensor_info(name, stored, item, int(np.prod(stored)) * item.itemsize, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    pool, rng = RowPool(seed), np.random.default_rng(seed + 1)
    total = sum(int(np.prod(dims)) for _, dims, _ in tensors(shape))
    done = 0
    for name, dims, gain in tensors(shape, expert_gain):
        if gain is not None:
            rows = pool.draw(int(np.prod(dims[:-1])), dims[-1], gain)
            values = rows.reshape(*dims[:-1], -1)
        elif len(dims) == 1:
            values = np.ones(dims, np.float32)
        elif "gate_inp" in name:
            values = rng.normal(0, ROUTER_SPREAD / shape.width**0.5, dims).astype(np.float32)
        else:
            values = _embedding(pool, rng, *dims)
        writer.write_tensor_data(values)
        done += int(np.prod(dims))
        print(f"\r{path.name}: {done / total:4.0%}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    writer.close()


def _embedding(pool: RowPool, rng: np.random.Generator, vocab: int, width: int) -> np.ndarray:
    shared = SHARED * rng.standard_normal(width).astype(np.float32)
    topics = TOPIC * rng.standard_normal((NUM_TOPICS, width)).astype(np.float32)
    chunks = []
    for start in range(0, vocab, _CHUNK_ROWS):
        ids = np.arange(start, min(start + _CHUNK_ROWS, vocab))
        own = OWN * rng.standard_normal((len(ids), width), dtype=np.float32)
        chunks.append(pool.quantize(shared + topics[ids % NUM_TOPICS] + own))
    return np.concatenate(chunks)


def _add_metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_description(
        f"random weights; routing by make_model.py: {NUM_TOPICS} topics (token id modulo), kept with"
        f" probability {TOPIC_STAYS}; parts of an embedding: shared {SHARED}, topic {TOPIC}, own {OWN:.2f}"
    )
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.theta)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(shape.vocab)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.top_k)
    writer.add_feed_forward_length(shape.feed_forward)
    if shape.architecture == "qwen3moe":
        writer.add_expert_feed_forward_length(shape.expert_width)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", choices=SHAPES, required=True)
    parser.add_argument("--layers", type=int, help="fewer or more than the model has")
    parser.add_argument(
        "--expert-gain",
        type=float,
        default=OUTPUT_GAIN,
        help="what experts add to the residual stream: at 2 the next layer's choice is as hard to foretell as"
        " in a trained model (default: 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shape = SHAPES[args.like]
    write_model(args.out, replace(shape, layers=args.layers or shape.layers), args.seed, args.expert_gain)


if __name__ == "__main__":
    main()
