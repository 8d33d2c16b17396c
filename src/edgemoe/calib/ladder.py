"""A ladder: one checkpoint as a store at every width, from which any mix of widths can be run.

A mixed model is only a manifest that picks each expert's record from one of the stores, so plans can be
measured without being written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgemoe.convert import convert
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.models import ModelSpec, read_spec
from edgemoe.native import ByteArray, ExpertWeights, aligned_empty
from edgemoe.quant import BitPlan
from edgemoe.store import ExpertKey, ExpertReader, Store, expert_matrices, open_store

# Widths that plans are made of, and the one that stands for the unquantised model.
WIDTHS = ("q2", "q3", "q4", "q6", "q8")
REFERENCE = "bf16"

Progress = Callable[[int, int], None]
Widths = Mapping[ExpertKey, str]


class Ladder:
    """Stores of one checkpoint at all widths, in one folder; a context manager."""

    def __init__(
        self, source: Path, folder: Path, dense_format: str, progress: Progress | None = None
    ) -> None:
        """Converts what is not there yet; interrupted, the same call goes on.

        Raises:
            CheckpointError: the checkpoint is damaged or not supported.
            ConversionError: the disk is full.
        """
        rungs = (*WIDTHS, REFERENCE)
        _forget_others(folder, f"{source.resolve()} {dense_format} {_newest(source)}\n")
        for done, name in enumerate(rungs):
            if not (folder / name).exists():
                convert(source, folder / name, BitPlan.uniform(name, dense_format))
            if progress is not None:
                progress(done + 1, len(rungs))
        self._stores = {name: open_store(folder / name) for name in rungs}
        base = self._stores[REFERENCE]
        self.spec: ModelSpec = read_spec(base.config)
        self._readers: dict[str, ExpertReader] = {}
        self.num_bytes = {
            key: {name: self._stores[name].manifest.experts[key].num_bytes for name in rungs}
            for key in base.manifest.experts
        }
        self._buffers = {
            name: aligned_empty(max(sizes[name] for sizes in self.num_bytes.values())) for name in rungs
        }

    def __enter__(self) -> Ladder:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    @property
    def keys(self) -> list[ExpertKey]:
        """All experts in order."""
        return list(self.num_bytes)

    def store(self, widths: Widths, default: str = REFERENCE) -> Store:
        """A store whose experts have these widths, and the default one where nothing is said."""
        base = self._stores[REFERENCE]
        experts = {}
        for key in base.manifest.experts:
            name = widths.get(key, default)
            entry = self._stores[name].manifest.experts[key]
            experts[key] = replace(entry, file=f"../{name}/{entry.file}")
        return Store(base.path, replace(base.manifest, experts=experts), base.config)

    def load(
        self, widths: Widths, context: int, budget_bytes: int | None = None, default: str = REFERENCE
    ) -> Engine:
        """That store, loaded; its owner closes ``engine.experts``."""
        options = LoadOptions(budget_bytes=budget_bytes, context=context, predictor="none", verify="never")
        return load_engine(self.store(widths, default), options)

    def read(self, key: ExpertKey, name: str) -> ExpertWeights:
        """One expert at one width; valid until the next of this width is read."""
        store = self._stores[name]
        if name not in self._readers:
            self._readers[name] = store.open_expert_reader(num_threads=1)
        entry = store.manifest.experts[key]
        record: ByteArray = self._buffers[name][: entry.num_bytes]
        try:
            self._readers[name].wait(
                self._readers[name].submit(store.file_index(entry), entry.offset, record)
            )
        except OSError as error:
            raise store.read_error(key, error) from error
        width = self.spec.moe(key[0]).expert.width
        return ExpertWeights(*expert_matrices(record, entry.formats, self.spec.width, width))

    def bits_per_weight(self, widths: Widths) -> float:
        """Effective bits of the experts' weights, scales and padding included."""
        num_weights = sum(self.spec.num_expert_weights(layer) for layer, _ in self.keys)
        return float(8 * np.sum([self.num_bytes[key][widths[key]] for key in self.keys]) / num_weights)


def _newest(source: Path) -> int:
    return max(path.stat().st_mtime_ns for path in (source, *source.glob("*")))


def _forget_others(folder: Path, identity: str) -> None:
    """Remove what another checkpoint, or another state of this one, has left in the folder."""
    mark = folder / "source"
    if mark.exists() and mark.read_text(encoding="utf-8") == identity:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text(identity, encoding="utf-8")
