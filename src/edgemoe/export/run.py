"""An export from beginning to end: what goes where is settled, then one dense tensor or expert at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.engine.defaults import read_sampling_defaults
from edgemoe.errors import CheckpointError
from edgemoe.export.gguf_file import GgufFile, tensor_num_bytes
from edgemoe.export.metadata import model_keys, notes
from edgemoe.export.outline import Part, Target, gguf_family, outline
from edgemoe.export.records import read_dense, read_experts
from edgemoe.export.row_factors import BLOCK_TYPE, expert_factors, has_factors, scale_name
from edgemoe.export.stored import stored_values
from edgemoe.export.vocabulary import sampling_keys, template_keys, vocabulary_keys
from edgemoe.export.weights import (
    USUAL_TYPE,
    Rounding,
    check_writable,
    choose_type,
    of_values,
    row_num_bytes,
    to_blocks,
    values_of,
)
from edgemoe.models import ModelSpec, read_spec
from edgemoe.native import ROW_GROUP, ByteArray, FloatArray, Matrix
from edgemoe.progress import Progress
from edgemoe.store import ExpertKey, Store, open_store
from edgemoe.text import Tokenizer

_PRECISE = "F32"
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True)
class ExportReport:
    """What an export did; sizes in bytes.

    ``num_matrices``: how many became what, by "format → block type", one count for every expert's.
    ``rounding``: relative root-mean-square change of the weights by the same, measured on the first rows of
    each matrix; 0 where none changes. ``splitting``: llama.cpp's name of how text is parted into words.
    ``notes`` are lines for people: what llama.cpp computes otherwise than the model's authors.
    """

    path: str
    architecture: str
    num_bytes: int
    num_tensors: int
    num_matrices: dict[str, int]
    rounding: dict[str, float]
    splitting: str
    has_template: bool
    elapsed_s: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def export_gguf(
    store: Store | str | Path,
    out: str | Path,
    *,
    block_type: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write what a store holds as one GGUF file that llama.cpp runs.

    Blocks that came from a GGUF file are written as they came; of our own formats the codes are kept, where
    a block type holds them. ``block_type`` makes all matrices of one type instead. ``progress(done, total)``
    is called in bytes of the file, which appears only when it is whole.

    Raises:
        UnsupportedModelError: GGUF files cannot hold this model, or its tokenizer.
        StoreError, CorruptStoreError: the store is damaged.
        ConversionError: ``out`` exists, or the disk is full.
        RequestError: no such block type.
    """
    started = time.monotonic()
    require_library()
    opened = store if isinstance(store, Store) else open_store(store)
    with GgufFile(Path(out), overwrite) as file:
        export = _Export(opened, file, None if block_type is None else check_writable(block_type))
        num_bytes = export.begin()
        for done in export.write_all():
            if progress is not None:
                progress(min(done, num_bytes), num_bytes)
        file.finish()
    if progress is not None:
        progress(num_bytes, num_bytes)
    return ExportReport(
        path=str(out),
        architecture=export.architecture,
        num_bytes=num_bytes,
        num_tensors=export.num_tensors,
        num_matrices=export.rounding.num_matrices,
        rounding=export.rounding.relative(),
        splitting=export.splitting,
        has_template=export.has_template,
        elapsed_s=time.monotonic() - started,
        notes=notes(export.spec),
    )


class _Export:
    """One store and the file that it becomes."""

    def __init__(self, store: Store, file: GgufFile, block_type: str | None) -> None:
        self._store, self._file = store, file
        self.spec: ModelSpec = read_spec(store.config)
        _, gguf = gguf_family(self.spec)
        self.architecture = gguf.architecture
        self.targets = outline(self.spec)
        self._types = {target.name: self._type_of(target, block_type) for target in self.targets}
        self._factors = {} if block_type is not None else self._settle_factors()
        self._numbers = self._factors | ({} if gguf.adds is None else gguf.adds(self.spec))
        self.num_tensors = len(self.targets) + len(self._numbers)
        self.rounding = Rounding()
        self.splitting, self.has_template = "none", False

    def begin(self) -> int:
        """Settle what the file says, and write that; the size of the file."""
        shapes = {target.name: target.shape for target in self.targets}
        keys: dict[str, Any] = {
            "general.name": self._store.path.absolute().name.removesuffix(".store"),
            "general.quantized_by": f"edgemoe {version('edgemoe')}",
            "general.quantization_version": _QUANTIZATION_VERSION,
            **model_keys(self.spec, self._store.config, shapes),
        }
        tokenizer = Tokenizer(self._store.path, self._store.config)
        vocabulary, self.splitting = vocabulary_keys(tokenizer, self.spec.vocab_size, self.architecture)
        templates = template_keys(tokenizer)
        self.has_template = bool(templates)
        keys |= vocabulary | templates | sampling_keys(read_sampling_defaults(self._store.path))
        tensors = {}
        for name, shape in shapes.items():
            row = row_num_bytes(self._types[name], shape[-1])
            tensors[name] = (shape, self._types[name], tensor_num_bytes(shape, row))
        for name, values in self._numbers.items():
            tensors[name] = (values.shape, _PRECISE, values.nbytes)
        return self._file.begin(self.architecture, keys, tensors)

    def write_all(self) -> Iterator[int]:
        """Write all tensors; yields the bytes written so far."""
        done = 0
        for name, values in self._numbers.items():
            self._file.write(name, values.view(np.uint8))
            done += values.nbytes
        of_experts = [target for target in self.targets if isinstance(target.parts[0].of, tuple)]
        for target in self.targets:
            if target not in of_experts:
                tensors = [(part, read_dense(self._store, str(part.of))) for part in target.parts]
                done += self._write(target, 0, tensors)
                yield done
        members: dict[ExpertKey, list[tuple[Target, Part]]] = {}
        for target in of_experts:
            for part in target.parts:
                assert isinstance(part.of, tuple), "these are tensors of experts"
                members.setdefault(part.of[:2], []).append((target, part))
        for key, matrices, _ in read_experts(self._store, self.spec):
            done += self._write_expert(matrices, members[key])
            yield done

    def _write_expert(self, matrices: Mapping[str, Matrix], members: list[tuple[Target, Part]]) -> int:
        done = 0
        for target in {id(target): target for target, _ in members}.values():
            parts = [part for other, part in members if other is target]
            tensors: list[tuple[Part, Matrix | FloatArray]] = [
                (part, matrices[part.of[2]]) for part in parts if isinstance(part.of, tuple)
            ]
            done += self._write(target, parts[0].ref.index or 0, tensors)
        return done

    def _write(self, target: Target, index: int, tensors: list[tuple[Part, Matrix | FloatArray]]) -> int:
        """Write an entry of a target, made of all of its parts; returns its bytes."""
        block_type, factors = self._types[target.name], self._factors.get(scale_name(target))
        factor = 1.0 if factors is None else float(factors[index])
        data = self._by_rows(target, tensors, block_type, factor)
        if data is None:
            data = self._by_values(target, tensors, block_type)
        self._file.write(target.name, data, index * data.nbytes)
        return data.nbytes

    def _by_rows(
        self,
        target: Target,
        tensors: list[tuple[Part, Matrix | FloatArray]],
        block_type: str,
        factor: float,
    ) -> ByteArray | None:
        """Blocks of matrices whose rows only stand in another order; None where more is to be done."""
        placed: list[tuple[Any, Matrix]] = []
        for part, tensor in tensors:
            rows = part.ref.stored_rows(target.entry)
            is_whole = part.shape == part.room and rows is not None and len(target.entry) == 2
            if isinstance(tensor, np.ndarray) or not is_whole:
                return None
            placed.append((rows, tensor))
        if len(placed) == 1 and bool(np.all(np.diff(placed[0][0]) == 1)):
            return to_blocks(placed[0][1], block_type, self.rounding, factor)
        blocks = np.zeros((target.entry[0], row_num_bytes(block_type, target.entry[1])), np.uint8)
        for rows, matrix in placed:
            blocks[rows] = to_blocks(matrix, block_type, self.rounding, factor)
        return blocks

    def _by_values(
        self, target: Target, tensors: list[tuple[Part, Matrix | FloatArray]], block_type: str
    ) -> ByteArray:
        """Blocks of what stands in other columns, or in more dimensions: they are rounded anew."""
        values = stored_values(target, tensors).reshape(-1, target.shape[-1])
        blocks = of_values(values, block_type)
        formats = sorted({tensor.format for _, tensor in tensors if isinstance(tensor, Matrix)})
        if formats:
            head = slice(ROW_GROUP)
            self.rounding.note(
                f"{'+'.join(formats)} → {block_type}", values[head], values_of(blocks[head], block_type)
            )
        return blocks

    def _settle_factors(self) -> dict[str, FloatArray]:
        """Tensors of factors that go along with NVFP4; what can have none gets another type."""
        marked = [target for target in self.targets if self._types[target.name] == BLOCK_TYPE]
        stacks = [target for target in marked if target.num_entries]
        found = {}
        for target in marked:
            if target.num_entries == 0 and any(
                has_factors(read_dense(self._store, str(part.of))) for part in target.parts
            ):
                self._types[target.name] = USUAL_TYPE
        of_stacks = expert_factors(self._store, self.spec, stacks, self.architecture)
        for target in stacks:
            factors = of_stacks[target.name]
            if factors is None:
                self._types[target.name] = USUAL_TYPE
            elif (factors != 1).any():
                found[scale_name(target)] = factors
        return found

    def _type_of(self, target: Target, asked: str | None) -> str:
        if not target.is_matrix:
            return _PRECISE
        manifest = self._store.manifest
        formats = set()
        for part in target.parts:
            if isinstance(part.of, str):
                formats.add(manifest.dense[part.of].format)
            else:
                formats.add(getattr(manifest.experts[part.of[:2]].formats, part.of[2]))
        return choose_type(formats, target.shape[-1], asked)


def require_library() -> None:
    """Raises CheckpointError where the gguf library is not there, with how to get it."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise CheckpointError(
            "writing GGUF needs the gguf library; install it with: pip install 'edgemoe[gguf]'"
        ) from None
