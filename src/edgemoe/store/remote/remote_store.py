"""A store at an address, used like any other: small files are copied once, experts are read by range.

    store = open_remote_store(parse_address("s3://bucket/qwen.store"))
    store = store.with_tier(20 << 30)          # bytes of this disk that experts may take; 0: none

Nothing of an expert is fetched before one is read, nor dense weights before they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory

from edgemoe.errors import CorruptStoreError, ExpertReadError, NotAStoreError, StoreError
from edgemoe.native import ByteArray
from edgemoe.progress import Progress
from edgemoe.store.expert_reader import Device, ExpertReader
from edgemoe.store.format import DENSE_FILE, MANIFEST_FILE, DenseEntry, ExpertEntry, ExpertKey
from edgemoe.store.manifest import read_manifest
from edgemoe.store.remote import network
from edgemoe.store.remote.address import Address
from edgemoe.store.remote.copy import LocalCopy, copy_of
from edgemoe.store.remote.failures import RemoteFailure
from edgemoe.store.remote.files import RemoteFiles
from edgemoe.store.remote.reader import RemoteReader, TieredReader
from edgemoe.store.remote.tier import NUM_WAITING, Record, Tier
from edgemoe.store.store import Store, open_store

# Requests at a time that are tried, as far as their records fit: round trips are long, and servers many.
_DEPTHS = (2, 4, 8, 16, 32)
_MOST_UNDER_WAY_BYTES = 64 << 20
_CONNECTION_BYTES = 128 << 10  # what a request takes besides its record
# Of what the disk has free, where nobody says how much the tier may take.
_USUAL_SHARE = 0.25


class RemoteStore(Store):
    """See the module; everything that reads a store reads this one too."""

    def __init__(self, store: Store, local: LocalCopy) -> None:
        super().__init__(store.path, store.manifest, store.config, store.notes)
        self._local = local
        self._files = local.files
        self._tier_bytes: int | None = None
        self._readers: list[RemoteReader] = []

    @property
    def name(self) -> str:
        """See Store."""
        return str(self._files.address)

    @property
    def depths(self) -> tuple[int, ...]:
        """See Store."""
        most = _MOST_UNDER_WAY_BYTES // self._largest_num_bytes
        return tuple(depth for depth in _DEPTHS if depth <= max(most, _DEPTHS[1]))

    @property
    def reader_num_bytes(self) -> int:
        """See Store; records that wait to be written are counted with the reads."""
        waiting = (NUM_WAITING + 2) * self._largest_num_bytes if self._capacity_bytes() else 0
        return self._largest_num_bytes + _CONNECTION_BYTES + -(-waiting // self.depths[-1])

    @property
    def tier_folder(self) -> Path:
        """Where experts are kept: the same for versions of the store that have the same experts."""
        entries = [(*key, e.file, e.offset, e.checksum) for key, e in self.manifest.experts.items()]
        digest = hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()[:16]
        return self._local.root / f"tier-{digest}"

    def with_tier(self, num_bytes: int) -> RemoteStore:
        """See Store."""
        changed = copy(self)
        changed._tier_bytes = num_bytes
        return changed

    def open_expert_reader(
        self, kind: str = "auto", max_depth: int = 4, device: Device | None = None
    ) -> ExpertReader:
        """A reader over the network behind the tier; ``kind`` and ``device`` are for the tier."""
        tier = self._open_tier()
        far = RemoteReader(self._files, self.expert_files, max_depth, tier)
        self._readers.append(far)
        return far if tier is None else TieredReader(far, tier, kind, device)

    def sample(self, reader: ExpertReader, count: int) -> tuple[ExpertReader, list[ExpertEntry]]:
        """See Store: the tier where it has half of the experts or more, else the network alone."""
        entries = list(self.manifest.experts.values())
        if isinstance(reader, TieredReader):
            find = reader.tier.find
            near = [e for e in entries if find(self.file_index(e), e.offset, e.num_bytes) is not None]
            if 2 * len(near) >= len(entries):
                return reader, near[:count]
        return RemoteReader(self._files, self.expert_files, self.depths[-1]), entries[:count]

    def read_dense(self, kind: str = "auto") -> dict[str, ByteArray]:
        """See Store; fetched at the first time, and once more where they arrived damaged."""
        self._fetch_dense()
        try:
            return super().read_dense(kind)
        except CorruptStoreError:
            self._local.forget_dense()
        self._fetch_dense()
        return super().read_dense(kind)

    def verify(self, progress: Progress | None = None) -> Iterator[str]:
        """See Store; reads what lies at the address and leaves the tier alone."""
        far = self.with_tier(0)
        far._fetch_dense()
        yield from Store.verify(far, progress)

    def _expert_header_damages(self, folder: Path) -> Iterator[str]:
        """See Store; the headers are fetched for it."""
        with TemporaryDirectory(dir=self._local.root) as fetched:
            for file in self.expert_files:
                first = min(e.offset for e in self.manifest.experts.values() if e.file == file)
                try:
                    data = network.run(self._files.read(file, 0, first))
                except RemoteFailure as failure:
                    yield f"{self._files.address.of(file)}: cannot be read: {failure.reason}"
                    return
                with (Path(fetched) / file).open("wb") as out:
                    out.write(data.data)
                    out.truncate(self.manifest.files[file])
            for damage in super()._expert_header_damages(Path(fetched)):
                yield damage.replace(fetched, self.name)

    def read_error(self, key: ExpertKey, reason: str | None) -> ExpertReadError:
        """See Store."""
        entry = self.manifest.experts[key]
        place = self.file_index(entry), entry.offset
        known = next((r.failures[place] for r in reversed(self._readers) if place in r.failures), None)
        return ExpertReadError(
            f"{self._files.address.of(entry.file)}: layer {key[0]} expert {key[1]} cannot be read:"
            f" {known.reason if known else reason}"
        )

    def _corrupt(self, what: str, entry: DenseEntry | ExpertEntry) -> CorruptStoreError:
        remedy = "differs from what was written; upload the store anew"
        if entry.file in self._files.changed:
            remedy = "was replaced while it was being read; load the store again"
        where = self._files.address.of(entry.file)
        return CorruptStoreError(f"{where}: {what} at offset {entry.offset} {remedy}")

    @property
    def _largest_num_bytes(self) -> int:
        return max(entry.num_bytes for entry in self.manifest.experts.values())

    def _fetch_dense(self) -> None:
        try:
            self._local.fetch_dense(self.manifest)
        except RemoteFailure as failure:
            raise _failed(self._files.address.of(DENSE_FILE), failure) from None

    def _capacity_bytes(self) -> int:
        if self._tier_bytes is not None:
            return self._tier_bytes
        wanted = sum(entry.num_bytes for entry in self.manifest.experts.values())
        held = sum(f.stat().st_blocks * 512 for f in self.tier_folder.glob("*") if f.is_file())
        free = shutil.disk_usage(self._local.root).free + held
        return min(wanted, int(_USUAL_SHARE * free))

    def _open_tier(self) -> Tier | None:
        capacity_bytes = self._capacity_bytes()
        for other in self._local.root.glob("tier-*"):
            if other != self.tier_folder:
                shutil.rmtree(other, ignore_errors=True)
        if capacity_bytes == 0:
            return None
        sizes = {file: self.manifest.files[file] for file in self.expert_files}
        records = [
            Record(self.file_index(e), e.offset, e.num_bytes, e.checksum)
            for e in self.manifest.experts.values()
        ]
        return Tier(self.tier_folder, sizes, records, capacity_bytes)


def open_remote_store(address: Address, files: RemoteFiles | None = None) -> RemoteStore:
    """Open the store at an address: its manifest is asked for, and what is small is copied if it has changed.

    Raises:
        NotAStoreError: there is no manifest.
        StoreError: it cannot be reached or used, or this disk cannot be written.
        RequestError: the library that reads such addresses is missing.
    """
    files = RemoteFiles(address) if files is None else files
    local = copy_of(address, files)
    try:
        local.fetch_manifest()
        manifest = read_manifest(local.folder)
        local.fetch_small(manifest)
        store = open_store(local.folder, has_expert_files=False, has_dense_file=False)
    except RemoteFailure as failure:
        raise _failed(str(address), failure) from None
    except StoreError as error:
        # Messages name the copy's folder; what is to be mended lies at the address.
        raise type(error)(str(error).replace(str(local.folder), str(address))) from None
    return RemoteStore(store, local)


def _failed(where: str, failure: RemoteFailure) -> StoreError:
    if failure.is_missing:
        return NotAStoreError(f"{where}: not a store, there is no {MANIFEST_FILE}: {failure.reason}")
    return StoreError(f"{where}: cannot be read: {failure.reason}")
