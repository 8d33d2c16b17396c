"""A store whose experts lie in another engine's files, as blocks that a format holds value for value.

Its folder is a store's, but for the expert files: ``blocks.json`` says where the blocks of each expert lie,
which the reader packs while they arrive. The manifest gives each a place in a file that is nowhere.
``first-reads.txt`` has the checksums of records as they were first read, a line ``layer.expert checksum``
each, appended when a model is closed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemoe.errors import CorruptStoreError, ExpertReadError, StoreError
from edgemoe.native import BlockSlice, ByteArray, FileReader
from edgemoe.store.expert_reader import Device, ExpertReader, open_by_kind
from edgemoe.store.format import ExpertKey, checksum
from edgemoe.store.store import Store, open_store

VIRTUAL_FILE = "experts.virtual"
BLOCKS_FILE = "blocks.json"
# Stands for the checksum of a record in the manifest.
NOT_YET_READ = "0" * 16
_FIRST_READS = "first-reads.txt"
_FIRST_READ = re.compile(r"(\d{1,6})\.(\d{1,6}) ([0-9a-f]{16})\n")
# What each read under way takes besides its record: one and a half huge pages to read into, as what has come
# waits to be packed, and a thread's stack where threads read.
READER_BUFFER_BYTES = (3 << 20) + (64 << 10)


@dataclass(frozen=True)
class BlockMap:
    """Files with blocks, and for every expert its offset in the virtual file and the slices it is made of.

    ``stamps``: size and time of change (ns) of each file when it was prepared.
    """

    paths: list[Path]
    records: list[tuple[int, list[BlockSlice]]]
    stamps: list[tuple[int, int]]

    def to_json(self) -> str:
        """The text of blocks.json; :meth:`from_json` is the inverse."""
        paths = [str(path) for path in self.paths]
        return json.dumps({"paths": paths, "records": self.records, "stamps": self.stamps})

    @classmethod
    def from_json(cls, text: str) -> BlockMap:
        """What :meth:`to_json` wrote."""
        fields = json.loads(text)
        records = [(int(at), [BlockSlice(*one) for one in slices]) for at, slices in fields["records"]]
        stamps = [(int(size), int(time)) for size, time in fields["stamps"]]
        return cls([Path(path) for path in fields["paths"]], records, stamps)

    def refuse_changed(self) -> None:
        """Raises StoreError, or OSError, where a file is not what was prepared."""
        for path, stamp in zip(self.paths, self.stamps, strict=True):
            if stamp_of(path) != stamp:
                raise StoreError(f"{path}: has changed while it was opened; repeat the command")


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of change (ns) of a file, which tell two states of it apart."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class BlockStore(Store):
    """See the module; everything that reads a store reads this one too."""

    def __init__(self, store: Store, blocks: BlockMap, name: str) -> None:
        super().__init__(store.path, store.manifest, store.config, store.notes)
        self._blocks = blocks
        self._name = name
        self._checksums = self._first_reads()

    @property
    def name(self) -> str:
        """The file, as it was named; its folder is nobody's business."""
        return self._name

    @property
    def reader_num_bytes(self) -> int:
        """See Store."""
        return READER_BUFFER_BYTES

    def open_expert_reader(
        self, kind: str = "auto", max_depth: int = 4, device: Device | None = None
    ) -> ExpertReader:
        """A reader that packs blocks as they come; see ``open_reader``."""
        names, speed = [str(path) for path in self._blocks.paths], device or Device()
        reader = open_by_kind(
            kind,
            lambda method: FileReader.of_blocks(
                names, self._blocks.records, max_depth, method, speed.bytes_per_s, speed.latency_s
            ),
        )
        self._blocks.refuse_changed()  # the reader notices what changes from here on
        return reader

    def expert_checksum(self, key: ExpertKey) -> int:
        """See Store."""
        return self._checksums.get(key, 0)

    def keep_checksums(self, found: Mapping[ExpertKey, int]) -> None:
        """Append those of first reads to the folder's file."""
        new = {key: value for key, value in found.items() if value and key not in self._checksums}
        self._checksums.update(new)
        lines = "".join(f"{layer}.{expert} {value:016x}\n" for (layer, expert), value in new.items())
        # A full disk must not stop a model that only reads.
        with contextlib.suppress(OSError), (self.path / _FIRST_READS).open("a", encoding="ascii") as file:
            file.write(lines)

    def is_sound(self, key: ExpertKey, record: ByteArray) -> bool:
        """Whether a record is as it was when it was first read."""
        return self.expert_checksum(key) in (0, int(checksum(record), 16))

    def damage_error(self, key: ExpertKey) -> CorruptStoreError:
        """See Store."""
        return CorruptStoreError(
            f"{self._where(key)} is not what it was when it was first read; fetch the file again"
        )

    def read_error(self, key: ExpertKey, reason: str | None) -> ExpertReadError:
        """See Store."""
        return ExpertReadError(f"{self._where(key)} cannot be read: {reason}; check the storage and the file")

    def _where(self, key: ExpertKey) -> str:
        offset = self.manifest.experts[key].offset
        first = next(slices[0] for at, slices in self._blocks.records if at == offset)
        path = self._blocks.paths[first.file]
        return f"{path}: layer {key[0]} expert {key[1]} at offset {first.offset}"

    def _first_reads(self) -> dict[ExpertKey, int]:
        try:
            lines = (self.path / _FIRST_READS).read_text("ascii").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError):
            return {}
        found: dict[ExpertKey, int] = {}
        for line in lines:
            # The last one may have been torn by a crash.
            if match := _FIRST_READ.fullmatch(line):
                found.setdefault((int(match[1]), int(match[2])), int(match[3], 16))
        return found


def open_block_store(folder: Path, name: str) -> BlockStore:
    """Open a folder that was prepared for another engine's files; ``name`` is what messages call them.

    Raises:
        StoreError: it is not there, damaged, or of another version.
    """
    store = open_store(folder, has_expert_files=False)
    try:
        blocks = BlockMap.from_json((folder / BLOCKS_FILE).read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / BLOCKS_FILE}: damaged ({error})") from error
    if [at for at, _ in blocks.records] != sorted(e.offset for e in store.manifest.experts.values()):
        raise StoreError(f"{folder / BLOCKS_FILE}: does not fit the manifest")
    return BlockStore(store, blocks, name)
