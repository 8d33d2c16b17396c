"""A ladder: one checkpoint as a store at every width, from which any mix of widths can be run.

A mixed model is only a manifest that picks each expert's record from one of the stores, so plans can be
measured without being written. Experts whose matrices have unlike widths are put together in another file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert, convert_in_parts
from edgemoe.convert.conversion import Conversion
from edgemoe.convert.parts import FindInputs
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.errors import RequestError
from edgemoe.executors import Executor, Here
from edgemoe.models import ModelSpec, read_spec
from edgemoe.native import ByteArray, ExpertWeights, FloatArray, aligned_empty, expert_ffn
from edgemoe.progress import Progress
from edgemoe.quant import BitPlan, ExpertFormats, ExpertInputs
from edgemoe.store import (
    ExpertEntry,
    ExpertKey,
    ExpertReader,
    Store,
    expert_matrices,
    expert_num_bytes,
    expert_record,
    open_store,
)
from edgemoe.store.durable import LOCK_FILE

# Widths that plans are made of, and the one that stands for the unquantised model.
WIDTHS = ("t2", "q2", "t3", "q3", "q4", "q6", "q8")
REFERENCE = "bf16"

# What an expert can have: one width for gate and up, which are alike, and one for down.
UNIFORM = tuple(ExpertFormats.uniform(name) for name in WIDTHS)
OPTIONS = tuple(ExpertFormats(raised, raised, down) for raised in WIDTHS for down in WIDTHS)
UNCHANGED = ExpertFormats.uniform(REFERENCE)
RUNGS = (REFERENCE, *WIDTHS)
# Says which conversions the folder is for, and that it is ours: what is in it may be replaced.
_MARK, _MARKED = "source", "made by edgemoe profile from "

Widths = Mapping[ExpertKey, ExpertFormats]


def build_ladder(
    source: Path,
    folder: Path,
    dense_format: str,
    executor: Executor,
    progress: Progress | None = None,
    find_inputs: Callable[[Store], FindInputs] | None = None,
) -> ExpertInputs | None:
    """Convert a checkpoint to every width, as far as that is not done; interrupted, the same call goes on.

    ``find_inputs`` takes the unquantised store and gives what any worker finds the inputs by that experts are
    rounded for; those are returned.

    Raises:
        CheckpointError: the checkpoint is damaged or not supported.
        ConversionError: the disk is full.
        RequestError: the folder is of another checkpoint, or holds something else.
        WorkerError: a worker failed.
    """
    refuse_foreign(folder, source)
    _mark(folder, source, dense_format)
    if not (folder / REFERENCE).exists():
        convert(source, folder / REFERENCE, BitPlan.uniform(REFERENCE, dense_format), keeps_mtp=False)
    found = None if find_inputs is None else find_inputs(open_store(folder / REFERENCE))
    inputs = None if found is None else found()
    if inputs is not None:
        _forget_widths(folder, inputs.identity)
    missing = [name for name in WIDTHS if not (folder / name).exists()]
    if isinstance(executor, Here):
        for done, name in enumerate(missing, 1):
            plan = BitPlan.uniform(name, dense_format)
            convert(source, folder / name, plan, inputs=inputs, keeps_mtp=False)
            if progress is not None:
                progress(done, len(missing))
    elif missing:
        targets = {folder / name: BitPlan.uniform(name, dense_format) for name in missing}
        convert_in_parts(source, targets, executor, find_inputs=found, keeps_mtp=False, progress=progress)
    return inputs


class Ladder:
    """Stores of one checkpoint at all widths, in one folder; a context manager."""

    def __init__(self, folder: Path, mixed: Path) -> None:
        """``folder`` as ``build_ladder`` has left it; experts of several widths go to the file ``mixed``,
        which nobody else writes and which is made when it is needed.
        """
        self._mixed_file = mixed
        self._stores = {name: open_store(folder / name) for name in RUNGS}
        base = self._stores[REFERENCE]
        self.spec: ModelSpec = read_spec(base.config)
        self._readers: dict[str, ExpertReader] = {}
        self._buffers: dict[str, ByteArray] = {}
        by_spec = {
            moe: {
                formats: expert_num_bytes(
                    formats.of(moe.expert.projections), moe.latent_width or self.spec.width, moe.expert.width
                )
                for formats in OPTIONS
            }
            for moe in {self.spec.moe(layer) for layer in self.spec.moe_layers}
        }
        # Of every option, padding included. Experts of one shape share a table.
        self.num_bytes: Mapping[ExpertKey, Mapping[ExpertFormats, int]] = {
            key: by_spec[self.spec.moe(key[0])] for key in base.manifest.experts
        }
        self._mixed: dict[tuple[ExpertKey, ExpertFormats], ExpertEntry] = {}

    def __enter__(self) -> Ladder:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._mixed_file.unlink(missing_ok=True)

    @property
    def keys(self) -> list[ExpertKey]:
        """All experts in order."""
        return list(self.num_bytes)

    def store(self, widths: Widths, default: ExpertFormats = UNCHANGED) -> Store:
        """A store whose experts have these widths, and the default one where nothing is said."""
        base = self._stores[REFERENCE]
        experts = {key: self._entry(key, widths.get(key, default)) for key in base.manifest.experts}
        return Store(base.path, replace(base.manifest, experts=experts), base.config)

    def load(
        self,
        widths: Widths,
        context: int,
        budget_bytes: int | None = None,
        default: ExpertFormats = UNCHANGED,
        held_bytes: int = 0,
    ) -> Engine:
        """That store, loaded beside what may hold ``held_bytes``; its owner closes ``engine.experts``."""
        options = LoadOptions(
            budget_bytes=budget_bytes,
            context=context,
            predictor="none",
            verify="never",
            held_bytes=held_bytes,
        )
        return load_engine(self.store(widths, default), options)

    def _entry(self, key: ExpertKey, formats: ExpertFormats) -> ExpertEntry:
        if len(set(formats.to_json())) == 1:
            entry = self._stores[formats.down].manifest.experts[key]
            return replace(entry, file=f"../{formats.down}/{entry.file}")
        if (key, formats) not in self._mixed:
            self._mixed[key, formats] = self._mix(key, formats)
        return self._mixed[key, formats]

    def _mix(self, key: ExpertKey, formats: ExpertFormats) -> ExpertEntry:
        """Append a record made of matrices of several stores."""
        record = expert_record(self.mixed(key, formats))
        self._mixed_file.parent.mkdir(exist_ok=True)
        with self._mixed_file.open("ab") as file:
            offset = file.tell()
            file.write(record)
        formats = formats.of(self.spec.moe(key[0]).expert.projections)
        place = os.path.relpath(self._mixed_file, self._stores[REFERENCE].path)
        return ExpertEntry(formats, place, offset, len(record), checksum="")

    def mixed(self, key: ExpertKey, formats: ExpertFormats) -> ExpertWeights:
        """One expert at these formats; valid until the next of one of these widths is read."""
        parts = {name: self.read(key, name) for name in set(formats.to_json())}
        gate = None if formats.gate is None else parts[formats.gate].gate
        return ExpertWeights(gate, parts[formats.up].up, parts[formats.down].down)

    def output(self, key: ExpertKey, formats: ExpertFormats, x: FloatArray) -> FloatArray:
        """What one expert makes of x (T, D) at these formats, (T, D)."""
        expert, chosen = self.mixed(key, formats), self.spec.moe(key[0]).expert
        return expert_ffn(x, *expert, chosen.activation, biases=self._biases(key))

    def _biases(self, key: ExpertKey) -> FloatArray | None:
        """Biases of an expert as native.expert_ffn takes them, None where it has none."""
        expert = self.spec.moe(key[0]).expert
        if not expert.has_bias:
            return None
        store, parts = self._stores[REFERENCE], []
        for projection in expert.projections:
            entry = store.manifest.dense[f"layers.{key[0]}.experts.{projection}_bias"]
            count = entry.shape[0] // self.spec.moe(key[0]).router.num_experts
            place = entry.offset + 4 * count * key[1]
            parts.append(np.fromfile(store.path / entry.file, np.float32, count, offset=place))
        return np.concatenate(parts)

    def read(self, key: ExpertKey, name: str) -> ExpertWeights:
        """One expert at one width; valid until the next of this width is read."""
        store = self._stores[name]
        if name not in self._readers:
            self._readers[name] = store.open_expert_reader(max_depth=1)
            largest = max(entry.num_bytes for entry in store.manifest.experts.values())
            self._buffers[name] = aligned_empty(largest)
        entry = store.manifest.experts[key]
        record: ByteArray = self._buffers[name][: entry.num_bytes]
        try:
            self._readers[name].wait(
                self._readers[name].submit(store.file_index(entry), entry.offset, record)
            )
        except OSError as error:
            raise store.read_error(key, error.strerror) from error
        return ExpertWeights(*expert_matrices(record, entry.formats, *self.spec.expert_sizes(key[0])))

    def bits_per_weight(self, widths: Widths) -> float:
        """Effective bits of the experts' weights, scales and padding included."""
        num_weights = sum(self.spec.num_expert_weights(layer) for layer, _ in self.keys)
        return 8 * sum(self.num_bytes[key][widths[key]] for key in self.keys) / num_weights


def refuse_foreign(folder: Path, source: Path) -> None:
    """Refuse a folder that is not ours to fill: one that holds the checkpoint, or anything but a ladder.

    Raises:
        RequestError: saying so.
    """
    if folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise RequestError(f"{folder} holds the checkpoint; choose a new folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RequestError(f"{folder} is a file; choose a new folder")
    is_ours = _marked(folder).startswith(_MARKED)
    if not is_ours and any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise RequestError(f"{folder} holds files that no profile wrote; choose a new folder")


def _marked(folder: Path) -> str:
    try:
        return (folder / _MARK).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _mark(folder: Path, source: Path, dense_format: str) -> None:
    opened = open_checkpoint(source)
    try:
        plan = BitPlan.uniform(REFERENCE, dense_format)
        identity = Conversion(opened, plan, keeps_mtp=False).identity()
    finally:
        opened.close()
    mark = f"{_MARKED}{identity}\n"
    if _marked(folder) not in ("", mark):
        raise RequestError(
            f"{folder} was made from another checkpoint, at other --dense-bits or by another version;"
            " choose another folder, or remove this one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).write_text(mark, encoding="utf-8")


def _forget_widths(folder: Path, identity: str) -> None:
    """Remove the quantised stores if they were rounded for other inputs."""
    mark = folder / "inputs"
    if mark.exists() and mark.read_text(encoding="utf-8") == identity:
        return
    for name in WIDTHS:
        shutil.rmtree(folder / name, ignore_errors=True)
    mark.write_text(identity, encoding="utf-8")
