"""GGUF files, single or split, read one slice at a time and seen under Hugging Face's names.

The container and its block types are read by the ``gguf`` library; here is what its tensors are called
elsewhere, and how their axes and rows lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemoe.checkpoint.gguf.config import read_config
from edgemoe.checkpoint.gguf.tokenizer import tokenizer_files
from edgemoe.checkpoint.source import SourceRef, TensorInfo
from edgemoe.errors import CheckpointError, MissingTensorError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    **{f"ffn_{p}": f"mlp.{p}_proj" for p in ("gate", "up", "down")},
    **{f"ffn_{p}_shexp": f"mlp.shared_expert.{p}_proj" for p in ("gate", "up", "down")},
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_STACKED = re.compile(r"blk\.(\d+)\.ffn_(gate|up|down)_exps\.weight")
# Files of early 2024 have one tensor an expert.
_SINGLE = re.compile(r"blk\.(\d+)\.ffn_(gate|up|down)\.(\d+)\.weight")
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class _Part:
    """Where a Hugging Face tensor lies: a whole GGUF tensor, or one expert of a stack.

    ``num_rotated_heads`` is not 0 where the writer has reordered rows for llama.cpp's way of rotating.
    """

    tensor: ReaderTensor
    expert: int | None = None
    num_rotated_heads: int = 0
    is_row: bool = False  # stored as a vector, a matrix of one row elsewhere

    @property
    def shape(self) -> tuple[int, ...]:
        shape = tuple(int(n) for n in reversed(self.tensor.shape))
        if self.is_row:
            return (1, *shape)
        return shape if self.expert is None else shape[1:]


class GgufCheckpoint:
    """One GGUF file, or all files of a split one when any of them is named; see CheckpointSource."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata: dict[str, Any] = {}
        tensors: dict[str, ReaderTensor] = {}
        for file in _all_files(path):
            reader = _open(file)
            # The first file of a split one has the metadata, the others only their number.
            for key, field in reader.fields.items():
                if key not in self._metadata:
                    self._metadata[key] = field.contents()
            tensors.update({tensor.name: tensor for tensor in reader.tensors})
        expected = self._metadata.get("split.tensors.count", len(tensors))
        if len(tensors) != expected:
            raise CheckpointError(f"{path}: its files hold {len(tensors)} tensors of {expected}; is one cut?")
        if "token_embd.weight" not in tensors:
            raise MissingTensorError(f"{path}: has no tensor token_embd.weight; not a language model")
        self._config = read_config(
            self._metadata,
            vocab_size=int(tensors["token_embd.weight"].shape[1]),
            has_head="output.weight" in tensors,
            has_bias="blk.0.attn_q.bias" in tensors,
        )
        self._parts = dict(_parts(tensors, self._config))

    def config(self) -> dict[str, Any]:
        """The configuration, in Hugging Face's keys."""
        return dict(self._config)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by Hugging Face's names, with the block type as type."""
        return {
            name: TensorInfo(
                part.shape,
                part.tensor.tensor_type.name,
                int(part.tensor.n_bytes) // (1 if part.expert is None else int(part.tensor.shape[-1])),
            )
            for name, part in self._parts.items()
        }

    def read(self, ref: SourceRef) -> NDArray[np.float32]:
        """One part of a tensor as float32; see CheckpointSource."""
        from gguf.quants import dequantize

        if ref.name not in self._parts:
            raise MissingTensorError(f"{self._path}: there is no tensor {ref.name}")
        part = self._parts[ref.name]
        stored = part.tensor.data if part.expert is None else part.tensor.data[part.expert]
        if part.is_row:
            stored = stored[None]
        rows = ref.rows or (0, part.shape[0])
        wanted = _rotated_rows(part, *rows) if part.num_rotated_heads else slice(*rows)
        try:
            values = dequantize(np.ascontiguousarray(stored[wanted]), part.tensor.tensor_type)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{self._path}: tensor {part.tensor.name} has type {part.tensor.tensor_type.name},"
                " which the gguf library cannot read"
            ) from error
        return np.ascontiguousarray(values, np.float32)

    def files(self) -> Mapping[str, bytes]:
        """Tokenizer, chat template and generation settings, rebuilt from the metadata."""
        return tokenizer_files(self._metadata, self._path)

    def close(self) -> None:
        """Let the mapped files go."""
        self._parts.clear()


def _all_files(path: Path) -> list[Path]:
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match[3])
    files = [path.with_name(f"{match[1]}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: not found; the model is split into {count} files")
    return files


def _open(path: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise CheckpointError(
            f"{path}: reading GGUF needs the gguf library; install it with: pip install 'edgemoe[gguf]'"
        ) from None
    try:
        if path.stat().st_size < 32:
            raise ValueError("too short")
        return GGUFReader(path)
    # The library lets errors of any kind through where a file is cut or not GGUF at all.
    except Exception as error:
        raise CheckpointError(f"{path}: not a GGUF file, or cut short; fetch it again") from error


def _parts(tensors: Mapping[str, ReaderTensor], config: Mapping[str, Any]) -> Iterator[tuple[str, _Part]]:
    heads: dict[str, int] = {}
    if config["model_type"] == "mixtral":
        num_heads = int(config["num_attention_heads"])
        heads = {"attn_q": num_heads, "attn_k": int(config.get("num_key_value_heads", num_heads))}
    for name, tensor in tensors.items():
        if match := _STACKED.fullmatch(name):
            for expert in range(int(tensor.shape[-1])):
                yield _expert_name(match[1], expert, match[2]), _Part(tensor, expert)
        elif match := _SINGLE.fullmatch(name):
            yield _expert_name(match[1], int(match[3]), match[2]), _Part(tensor)
        elif (match := _LAYER_NAME.fullmatch(name)) and match[2] in _LAYER:
            new = f"model.layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}"
            is_row = match[2] == "ffn_gate_inp_shexp" and len(tensor.shape) == 1
            yield new, _Part(tensor, None, heads.get(match[2], 0), is_row)
        else:
            stem, _, kind = name.rpartition(".")
            # A name that is not known keeps its own, and is refused where names are matched.
            yield (f"{_TOP[stem]}.{kind}" if stem in _TOP else name), _Part(tensor)


def _expert_name(layer: str, expert: int, projection: str) -> str:
    return f"model.layers.{layer}.mlp.experts.{expert}.{projection}_proj.weight"


def _rotated_rows(part: _Part, start: int, stop: int) -> NDArray[np.int64]:
    """Stored rows of the rows [start, stop): pairs stand side by side there, half a head apart here."""
    head_dim = part.shape[0] // part.num_rotated_heads
    head, row = np.divmod(np.arange(start, stop), head_dim)
    half, pair = np.divmod(row, head_dim // 2)
    rows: NDArray[np.int64] = head * head_dim + 2 * pair + half
    return rows
