"""A store packed in parts, each a work item: workers write files of packed tensors, and the store is put
together of them as they come. Its bytes are those of ``convert``.

    OUT.parts/IDENTITY/3.part     the tensors of a part, until they are in the store
    OUT.parts/IDENTITY/3.json     their sizes; written last
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert.conversion import Conversion
from edgemoe.convert.packing import CHUNK_FLOATS
from edgemoe.convert.run import ConversionReport, finish_store
from edgemoe.errors import ConversionError
from edgemoe.executors import Executor, run_items
from edgemoe.json_object import read_json_object
from edgemoe.native import ByteArray
from edgemoe.progress import Progress, Tell
from edgemoe.quant import BitPlan, ExpertInputs
from edgemoe.store import StoreWriter
from edgemoe.store.durable import replace_file
from edgemoe.system import sync_file

# Of packed bytes: minutes of rounding, little to lose when a worker dies. A larger tensor is a part alone.
MAX_PART_BYTES = 32 * 1024**2

# Parts by the identity of their conversion; an executor's mark and its logs.
_OURS = re.compile(r"[0-9a-f]{16}|workers|jobs")

FindInputs = Callable[[], ExpertInputs]


@dataclass(frozen=True)
class Packing:
    """A conversion as any process begins it."""

    source: Path
    plan: BitPlan
    find_inputs: FindInputs | None
    keeps_mtp: bool
    identity: str


@dataclass(frozen=True)
class Part:
    """Some tensors of a store, in order."""

    store: str
    number: int
    tensors: tuple[str, ...]
    folder: Path
    packing: Packing

    @property
    def name(self) -> str:
        """See Item."""
        return f"part {self.number} of {self.store}"

    @property
    def output(self) -> Path:
        """See Item; it is written after ``data``."""
        return self.folder / f"{self.number}.json"

    @property
    def data(self) -> Path:
        """The packed tensors, one after the other."""
        return self.folder / f"{self.number}.part"


def pack_part(part: Part) -> None:
    """Write the files of one part, in any process.

    Raises:
        CheckpointError: the checkpoint is damaged, or not that which the conversion began with.
        ConversionError: the disk is full or failed.
    """
    conversion = _opened(part.packing)
    conversion.squares.clear()
    wanted, sizes = set(part.tensors), {}
    partial = part.data.with_name(f"{part.data.name}.{os.uname().nodename}-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            for name, _, chunks in conversion.tensors():
                if name in wanted:
                    sizes[name] = sum(file.write(chunk.data) for chunk in chunks)
            file.flush()
            sync_file(file.fileno())
        os.replace(partial, part.data)
        replace_file(part.output, json.dumps({"sizes": sizes, "squares": conversion.squares}).encode())
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConversionError(
            f"{part.folder}: cannot be written: {error.strerror}; the same command goes on"
        ) from error


def convert_in_parts(
    source: Path,
    targets: Mapping[Path, BitPlan],
    executor: Executor,
    *,
    find_inputs: FindInputs | None = None,
    keeps_mtp: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> list[ConversionReport]:
    """One store for each plan, of the same bytes as by ``convert``, computed by an executor.

    Its workers see ``source`` and the targets' folder, which is one. ``find_inputs`` can be pickled, and
    gives what the experts are rounded for on whatever node. The other options are those of ``convert``, but
    ``tell`` is given the notes of one store. An interrupted call, made again, goes on, also by ``convert``.

    Raises:
        CheckpointError, ConversionError: as ``convert``.
        RequestError, WorkerError: the executor cannot work, or a part could not be made.
    """
    executor.check()
    started = time.monotonic()
    inputs = None if find_inputs is None else find_inputs()
    with ExitStack() as stack:
        opened = stack.enter_context(closing(open_checkpoint(source)))
        stores: dict[str, _Store] = {}
        for out, plan in targets.items():
            conversion = Conversion(opened, plan, inputs, keeps_mtp=keeps_mtp)
            writer = stack.enter_context(
                StoreWriter(out, conversion.layout, conversion.identity(), overwrite)
            )
            packing = Packing(source.absolute(), plan, find_inputs, keeps_mtp, conversion.identity())
            stores[out.name] = _Store(out.name, conversion, writer, packing, _parts_folder(out))
        if tell is not None:
            for note in next(iter(stores.values())).conversion.notes:
                tell(note)
        _pack(stores, executor, progress)
        return [store.finish(out, started) for store, out in zip(stores.values(), targets, strict=True)]


def _pack(stores: Mapping[str, _Store], executor: Executor, progress: Progress | None) -> None:
    """Have all parts made that are not there, and put each into its store as it comes."""
    done = sum(store.num_done for store in stores.values())
    total = sum(store.conversion.layout.num_bytes for store in stores.values())

    def take(part: Part) -> None:
        nonlocal done
        done += stores[part.store].take(part)
        if progress is not None:
            progress(done, total)

    missing = [part for store in stores.values() for part in store.missing()]
    # What executors keep while they work lies there too, and goes with it.
    folder = next(iter(stores.values())).parts
    run_items(executor, pack_part, missing, folder, finished=take)


def _parts_folder(out: Path) -> Path:
    """Where the parts of a store lie. All in it is removed in the end.

    Raises:
        ConversionError: it holds something else.
    """
    folder = out.absolute().with_name(f"{out.name}.parts")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (folder.exists() and not folder.is_dir()) or not all(map(_OURS.fullmatch, names)):
        raise ConversionError(f"{folder}: was not made by a conversion; move it away, or choose another name")
    return folder


@dataclass(frozen=True)
class _Store:
    """One of the stores that are being put together."""

    name: str
    conversion: Conversion
    writer: StoreWriter
    packing: Packing
    parts: Path

    @property
    def num_done(self) -> int:
        """Bytes of the tensors that are in the store."""
        sizes = {name: num_bytes for name, num_bytes, _ in self.conversion.tensors()}
        return sum(num_bytes for name, num_bytes in sizes.items() if name in self.writer.checksums)

    def missing(self) -> list[Part]:
        """The parts that are not in the store yet."""
        folder = self.parts / self.packing.identity[:16]
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {name: num_bytes for name, num_bytes, _ in self.conversion.tensors()}
        parts = [
            Part(self.name, number, names, folder, self.packing) for number, names in enumerate(cut(sizes))
        ]
        return [part for part in parts if not self.writer.checksums.keys() >= set(part.tensors)]

    def take(self, part: Part) -> int:
        """Put a finished part into the store; returns the bytes that it adds."""
        facts = read_json_object(part.output)
        self.conversion.add_squares(facts["squares"])
        before = self.num_done
        with part.data.open("rb") as file:
            for name, num_bytes in facts["sizes"].items():
                self.writer.write(name, _chunks(file.fileno(), num_bytes))
        part.output.unlink()
        part.data.unlink()
        return self.num_done - before

    def finish(self, out: Path, started: float) -> ConversionReport:
        """Give the store its name."""
        report = finish_store(self.conversion, self.writer, out, started)
        shutil.rmtree(self.parts, ignore_errors=True)
        return report


def cut(sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Tensors in order, by their names and bytes, in groups of at most MAX_PART_BYTES."""
    groups: list[list[str]] = []
    room = 0
    for name, num_bytes in sizes.items():
        if not groups or num_bytes > room:
            groups.append([])
            room = MAX_PART_BYTES
        groups[-1].append(name)
        room -= num_bytes
    return [tuple(group) for group in groups]


def _chunks(descriptor: int, num_bytes: int) -> Iterator[ByteArray]:
    left = num_bytes
    while left:
        data = os.read(descriptor, min(left, CHUNK_FLOATS))
        if not data:
            raise ConversionError("a part ends too early; repeat the command, it is made again")
        left -= len(data)
        yield np.frombuffer(data, np.uint8)


# The conversion that this process has open, for the next part of it.
_open: list[tuple[Packing, Conversion]] = []


def _opened(packing: Packing) -> Conversion:
    if not _open or _open[0][0] != packing:
        _open.clear()
        inputs = None if packing.find_inputs is None else packing.find_inputs()
        conversion = Conversion(
            open_checkpoint(packing.source), packing.plan, inputs, keeps_mtp=packing.keeps_mtp
        )
        if conversion.identity() != packing.identity:
            raise ConversionError(f"{packing.source} is another checkpoint here than where the work began")
        _open.append((packing, conversion))
    return _open[0][1]
