"""Writes a GGUF file of a known model's shape with random weights whose routing is like a real model's.

    python benchmarks/make_model.py --like olmoe-1b-7b olmoe.gguf
    python benchmarks/make_model.py --like qwen3.6-35b-a3b --layers 16 --vocab 99328 --mtp qwen-16.gguf

Nothing larger than one tensor is ever held in memory. Matrices are Q4_K (4.5 bits per weight; Q8_0 where rows
are no whole blocks of 256; MXFP4 the experts of gpt-oss), quantised by ggml itself; rows are drawn from a
pool, because speed does not depend on values, but routing does:

* An embedding is the sum of a part that all tokens share (some experts are popular), a part that the tokens
  of a topic share (neighbours in a text choose alike) and a part of its own; routers are plain Gaussian.
* ``token_chain`` draws texts that stay with a topic for a while.

The shares are set so that caching per layer meets what is published for OLMoE-1B-7B: with 24 of 64 experts
kept, LRU hits 68 % and Belady's policy 84 % of the uses.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import gguf
import numpy as np
from ggml import find_ggml
from gguf import GGMLQuantizationType as Type
from gguf_vocabulary import add_tokenizer
from model_shapes import OUTPUT_GAIN, SHAPES, Qwen35, Shape, Tensor

# Tokens above have rows in the embedding, but no text of ours contains them.
USED_TOKENS = 4096
NUM_TOPICS = 16
TOPIC_STAYS = 0.9  # probability that the next token is of the same topic
# Standard deviations of the parts of an embedding; their squares sum to 1.
SHARED, TOPIC = 0.40, 0.45
OWN = (1 - SHARED**2 - TOPIC**2) ** 0.5
ROUTER_SPREAD = 2.0  # standard deviation of the router's logits
_POOL_ROWS = 2048
_CHUNK_ROWS = 4096


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
        self._pools: dict[tuple[int, float, Type], np.ndarray] = {}
        ggml = find_ggml()
        if ggml is None:
            sys.exit("make_model.py: quantises with llama.cpp's own library: pip install llama-cpp-python")
        self._ggml = ggml

    def quantize(self, rows: np.ndarray, kind: Type) -> np.ndarray:
        """Float rows as blocks of a type, by ggml."""
        block, num_bytes = gguf.GGML_QUANT_SIZES[kind]
        return self._ggml.quantize(
            np.ascontiguousarray(rows, np.float32), kind, rows.shape[1] // block * num_bytes
        )

    def draw(self, num_rows: int, cols: int, gain: float, kind: Type) -> np.ndarray:
        """Packed rows whose product with a state of unit variance has the variance ``gain`` squared."""
        key = cols, gain, kind
        if key not in self._pools:
            spread = gain / cols**0.5
            self._pools[key] = self.quantize(self._rng.normal(0, spread, (_POOL_ROWS, cols)), kind)
        return self._pools[key][self._rng.integers(_POOL_ROWS, size=num_rows)]


def write_model(path: Path, shape: Shape, seed: int = 0, expert_gain: float = OUTPUT_GAIN) -> None:
    """Write the file; shows progress."""
    pool, rng = RowPool(seed), np.random.default_rng(seed + 1)
    writer = gguf.GGUFWriter(path, shape.architecture)
    _add_description(writer)
    shape.add_keys(writer)
    add_tokenizer(writer, Path(str(files("edgemoe") / "demo_store")), shape.vocab)
    tensors = list(shape.tensors(expert_gain))
    for tensor in tensors:
        is_packed = tensor.stored_as != Type.F32
        stored = gguf.quant_shape_to_byte_shape(tensor.dims, tensor.stored_as) if is_packed else tensor.dims
        item = np.dtype(np.uint8 if is_packed else np.float32)
        num_bytes = int(np.prod(stored)) * item.itemsize
        writer.add_tensor_info(tensor.name, stored, item, num_bytes, tensor.stored_as)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total = sum(int(np.prod(tensor.dims)) for tensor in tensors)
    done = 0
    for tensor in tensors:
        writer.write_tensor_data(_values(tensor, pool, rng))
        done += int(np.prod(tensor.dims))
        print(f"\r{path.name}: {done / total:4.0%}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    writer.close()


def _values(tensor: Tensor, pool: RowPool, rng: np.random.Generator) -> np.ndarray:
    dims = tensor.dims
    if tensor.value is not None:
        return np.full(dims, tensor.value, np.float32)
    if tensor.gain is not None:
        rows = pool.draw(int(np.prod(dims[:-1])), dims[-1], tensor.gain, tensor.stored_as)
        return rows.reshape(*dims[:-1], -1)
    if tensor.is_router:
        return rng.normal(0, ROUTER_SPREAD / dims[1] ** 0.5, dims).astype(np.float32)
    return _embedding(pool, rng, tensor)


def _embedding(pool: RowPool, rng: np.random.Generator, tensor: Tensor) -> np.ndarray:
    vocab, width = tensor.dims
    shared = SHARED * rng.standard_normal(width).astype(np.float32)
    topics = TOPIC * rng.standard_normal((NUM_TOPICS, width)).astype(np.float32)
    chunks = []
    for start in range(0, vocab, _CHUNK_ROWS):
        ids = np.arange(start, min(start + _CHUNK_ROWS, vocab))
        own = OWN * rng.standard_normal((len(ids), width), dtype=np.float32)
        chunks.append(pool.quantize(shared + topics[ids % NUM_TOPICS] + own, tensor.stored_as))
    return np.concatenate(chunks)


def _add_description(writer: gguf.GGUFWriter) -> None:
    writer.add_description(
        f"random weights; routing by make_model.py: {NUM_TOPICS} topics (token id modulo), kept with"
        f" probability {TOPIC_STAYS}; parts of an embedding: shared {SHARED}, topic {TOPIC}, own {OWN:.2f}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", choices=SHAPES, required=True)
    parser.add_argument("--layers", type=int, help="fewer or more than the model has")
    parser.add_argument(
        "--vocab", type=int, help="so that the head of fewer layers takes its share of a step"
    )
    parser.add_argument(
        "--mtp", action="store_true", help="with a layer for further tokens, as Qwen3.6 has it"
    )
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
    if args.mtp:
        if not isinstance(shape, Qwen35):
            parser.error(f"--mtp: {args.like} has no layer for further tokens here")
        shape = replace(shape, has_mtp=True)
    shape = replace(shape, layers=args.layers or shape.layers, vocab=args.vocab or shape.vocab)
    write_model(args.out, shape, args.seed, args.expert_gain)


if __name__ == "__main__":
    main()
