"""An export as a checkpoint folder of Hugging Face's in the format of compressed-tensors, which transformers
loads and vLLM is built to load.

Matrices are rounded anew from what the store's stand for, one dense tensor or expert at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.export.checkpoint_outline import FORMAT, all_names, checkpoint_outline, checkpoint_shape
from edgemoe.export.integers import GROUP_COLS, of_bf16, of_integers, packed, to_bf16, to_integers
from edgemoe.export.outline import Target
from edgemoe.export.records import read_dense, read_experts
from edgemoe.export.schemes import (
    BF16,
    F32,
    TYPES,
    Widths,
    bits_of_type,
    module_of,
    quantization_config,
    settle_widths,
)
from edgemoe.export.shards import CONFIG, CheckpointFolder, StoredTensor
from edgemoe.export.stored import Parts, stored_rows
from edgemoe.export.weights import Rounding
from edgemoe.models import read_spec
from edgemoe.native import FloatArray, Matrix
from edgemoe.progress import Progress
from edgemoe.store import ExpertKey, Store, open_store
from edgemoe.store.format import ATTACHED

# Rows of each matrix by which the change of weights is measured.
_NUM_MEASURED = 16


@dataclass(frozen=True)
class CheckpointReport:
    """What an export did; sizes in bytes.

    ``num_matrices`` and ``rounding``: as those of ``ExportReport``, by "format → type". ``expert_types``: the
    type of all experts of a layer, by its number. ``notes`` are lines for people: who does not take what was
    written, and what is not in it.
    """

    path: str
    format: str
    num_bytes: int
    num_tensors: int
    num_matrices: dict[str, int]
    rounding: dict[str, float]
    expert_types: dict[int, str]
    has_template: bool
    elapsed_s: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def export_checkpoint(
    store: Store | str | Path,
    out: str | Path,
    *,
    type_name: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CheckpointReport:
    """Write what a store holds as a checkpoint folder in the format of compressed-tensors.

    Experts of a layer have 4 bits where none of them has more in the store, else 8, and are bf16 where one
    is a float; other matrices have 8 bits or are bf16. ``type_name``: "w4a16", "w8a16" or "bf16" for all of
    them. ``progress(done, total)`` is called in bytes of the folder, which appears only when it is whole.

    Raises:
        UnsupportedModelError: such a checkpoint of this model cannot be written.
        StoreError, CorruptStoreError: the store is damaged.
        ConversionError: ``out`` exists, or the disk is full.
        RequestError: no such type.
    """
    started = time.monotonic()
    asked = bits_of_type(type_name)
    opened = store if isinstance(store, Store) else open_store(store)
    with CheckpointFolder(Path(out), overwrite) as folder:
        export = _Export(opened, folder, asked)
        num_bytes = folder.begin([export.stored(target) for target in export.targets])
        for done in export.write_all():
            if progress is not None:
                progress(min(done, num_bytes), num_bytes)
        files = export.side_files()
        folder.finish(files)
    num_bytes += sum(map(len, files.values()))
    if progress is not None:
        progress(num_bytes, num_bytes)
    return CheckpointReport(
        path=str(out),
        format=FORMAT,
        num_bytes=num_bytes,
        num_tensors=sum(len(export.stored(target)) for target in export.targets),
        num_matrices=export.rounding.num_matrices,
        rounding=export.rounding.relative(),
        expert_types={layer: type_of(bits) for layer, bits in export.widths.experts.items()},
        has_template="chat_template.jinja" in files,
        elapsed_s=time.monotonic() - started,
        notes=_notes(opened, export.widths, bool(export.architectures)),
    )


def type_of(bits: int) -> str:
    """The name of the type of a width."""
    return next((name for name, width in TYPES.items() if width == bits), "f32")


class _Export:
    """One store and the folder that it becomes."""

    def __init__(self, store: Store, folder: CheckpointFolder, asked: int | None) -> None:
        self._store, self._folder = store, folder
        self._spec = read_spec(store.config)
        self.targets = checkpoint_outline(self._spec, store.config)
        self.widths = settle_widths(self.targets, store.manifest, asked)
        self.architectures = store.config.get("architectures") or _architectures(self._spec.family)
        self.rounding = Rounding()

    def stored(self, target: Target) -> tuple[StoredTensor, ...]:
        """The tensors of the folder that hold one of the checkpoint's."""
        bits = self.widths.of[target.name]
        if bits >= BF16:
            return (StoredTensor(target.name, "F32" if bits == F32 else "BF16", checkpoint_shape(target)),)
        module, (rows, cols) = module_of(target.name), target.entry
        return (
            StoredTensor(f"{module}.weight_packed", "I32", (rows, cols * bits // 32)),
            StoredTensor(f"{module}.weight_scale", "BF16", (rows, cols // GROUP_COLS)),
            StoredTensor(f"{module}.weight_shape", "I64", (2,)),
        )

    def write_all(self) -> Iterator[int]:
        """Write all tensors; yields the bytes written so far."""
        done = 0
        members: dict[ExpertKey, list[Target]] = {}
        for target in self.targets:
            of = target.parts[0].of
            if isinstance(of, tuple):
                members.setdefault(of[:2], []).append(target)
                continue
            done += self._write(target, [(p, read_dense(self._store, str(p.of))) for p in target.parts])
            yield done
        for key, matrices, _ in read_experts(self._store, self._spec):
            for target in members[key]:
                done += self._write(target, _parts_of(target, matrices))
            yield done

    def side_files(self) -> dict[str, bytes]:
        """The configuration, tokenizer and what else lies beside the tensors."""
        names = [n for n in self._store.manifest.checksums if n != CONFIG and not ATTACHED.fullmatch(n)]
        config = {key: value for key, value in self._store.config.items() if key != "torch_dtype"}
        config["dtype"] = "bfloat16"
        if self.architectures:
            config["architectures"] = self.architectures
        quantization = quantization_config(self.targets, self.widths, partial(all_names, self._spec))
        if quantization is not None:
            config["quantization_config"] = quantization
        data = json.dumps(config, indent=2, ensure_ascii=False).encode()
        return {**{name: (self._store.path / name).read_bytes() for name in names}, CONFIG: data}

    def _write(self, target: Target, tensors: Parts) -> int:
        """Write a tensor of the checkpoint, made of all of its parts; returns its bytes."""
        bits, stored = self.widths.of[target.name], self.stored(target)
        if bits == F32:
            values = np.concatenate([rows for _, rows in stored_rows(target, tensors)])
            self._folder.write(target.name, values.view(np.uint8))
        else:
            change = f"{_formats(tensors)} → {type_of(bits)}"
            for start, rows in stored_rows(target, tensors):
                after = self._write_rows(stored, bits, start, rows)
                if start == 0:
                    head = min(_NUM_MEASURED, len(rows))
                    self.rounding.note(change, rows[:head], after[:head])
        if bits < BF16:
            self._folder.write(stored[2].name, np.array(target.entry, np.int64).view(np.uint8))
        return sum(tensor.num_bytes for tensor in stored)

    def _write_rows(
        self, stored: tuple[StoredTensor, ...], bits: int, start: int, rows: FloatArray
    ) -> FloatArray:
        """Write some rows of a matrix; returns the first of what they have become."""
        if bits == BF16:
            words = to_bf16(rows)
            self._folder.write(stored[0].name, words.view(np.uint8), start * words[0].nbytes)
            return of_bf16(words[:_NUM_MEASURED])
        codes, scales = to_integers(rows, bits)
        data = packed(codes, bits)
        self._folder.write(stored[0].name, data, start * data[0].nbytes)
        self._folder.write(stored[1].name, scales.view(np.uint8), start * scales[0].nbytes)
        return of_integers(codes[:_NUM_MEASURED], scales[:_NUM_MEASURED])


def _parts_of(target: Target, matrices: Mapping[str, Matrix]) -> Parts:
    return [(part, matrices[part.of[2]]) for part in target.parts if isinstance(part.of, tuple)]


def _formats(tensors: Parts) -> str:
    found = {"f32" if isinstance(tensor, np.ndarray) else tensor.format for _, tensor in tensors}
    return "+".join(sorted(found))


def _architectures(model_type: str) -> list[str]:
    """What transformers calls the class of a model; nothing where it is not installed, or knows none."""
    try:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except ImportError:
        return []
    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return [found] if isinstance(found, str) else []


def _notes(store: Store, widths: Widths, has_architectures: bool) -> tuple[str, ...]:
    """What people should know of the folder."""
    found = []
    if not widths.are_alike:
        kinds = [
            f"{type_of(bits)} in layers {', '.join(str(n) for n, b in widths.experts.items() if b == bits)}"
            for bits in sorted(set(widths.experts.values()))
        ]
        found.append(
            f"experts are {' and '.join(kinds)}: vLLM takes them layer by layer, transformers wants one type"
            " for all layers; --type w8a16 or w4a16 makes it so"
        )
    if store.manifest.mtp is not None:
        found.append("the layer that predicts further tokens is left out")
    if not has_architectures:
        found.append("config.json names no architectures, by which vLLM chooses its own model; add the name")
    return tuple(found)
