"""The local copy of a remote store's small files, and of its dense weights once they are needed.

    <cache>/<name>-<address>/current.json          which version was there last
    <cache>/<name>-<address>/<version>/...         that version's manifest, configuration, tokenizer, dense
    <cache>/<name>-<address>/tier-<experts>/...    experts that were read; see tier.py

A version is named by the checksum of its manifest, which pins the checksums of everything else. So the
address is asked for the manifest alone, and for nothing else if that has not changed. A large file comes in
pieces beside its place; those that are there are not fetched again after an interruption.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemoe.errors import CorruptStoreError, StoreError
from edgemoe.store.durable import replace_file, take_lock
from edgemoe.store.format import DENSE_FILE, MANIFEST_FILE, Manifest, checksum
from edgemoe.store.library import HOME
from edgemoe.store.remote import network
from edgemoe.store.remote.address import Address
from edgemoe.store.remote.files import RemoteFiles
from edgemoe.system import sync_file
from edgemoe.user_folders import user_cache

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PIECE_BYTES = 4 << 20  # a range that a slow link brings within its time, and large beside a round trip
_NUM_AT_ONCE = 8
_CURRENT = "current.json"


def cache_folder() -> Path:
    """Where copies of remote stores are kept; it need not exist."""
    home = os.environ.get(HOME)
    if home:
        return Path(home).expanduser() / "remote"
    return user_cache() / "remote"


class LocalCopy:
    """What of a store at an address is on this disk."""

    def __init__(self, files: RemoteFiles, root: Path) -> None:
        self.files = files
        self.root = root
        self.folder = root  # of the version, once the manifest is there

    def fetch_manifest(self) -> None:
        """Ask for the manifest, and keep it.

        Raises:
            RemoteFailure: it cannot be had.
            StoreError: this disk cannot be written.
        """
        known = self._current()
        received = network.run(self.files.get(MANIFEST_FILE, known.get("version")))
        if received is None:
            self.folder = self.root / known["folder"]
            return
        data, version = received
        name = hashlib.sha256(data).hexdigest()[:16]
        self.folder = self.root / name
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / MANIFEST_FILE, bytes(data))
            current = {"address": str(self.files.address), "version": version, "folder": name}
            replace_file(self.root / _CURRENT, json.dumps(current).encode())

    def fetch_small(self, manifest: Manifest) -> None:
        """Fetch the files whose checksums the manifest has, unless they are there; forget other versions.

        Raises:
            RemoteFailure: one cannot be had.
            CorruptStoreError: one is not what the manifest says.
            StoreError: this disk cannot be written.
        """
        missing = [name for name in manifest.checksums if not _is_there(self.folder / name, manifest, name)]
        network.run(self._fetch_all(missing, manifest))
        for other in self.root.iterdir():
            is_version = re.fullmatch(r"[0-9a-f]{16}", other.name) is not None
            if is_version and other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def fetch_dense(self, manifest: Manifest) -> None:
        """Fetch the dense weights, unless they are there; another process that does so is waited for.

        Raises:
            RemoteFailure: they cannot be had; what came of them is kept.
            StoreError: this disk cannot be written.
        """
        path, num_bytes = self.folder / DENSE_FILE, manifest.files[DENSE_FILE]
        with _writing(self.folder), _locked(self.folder):
            if path.is_file() and path.stat().st_size == num_bytes:
                return
            pieces = _Pieces(path, num_bytes)
            try:
                network.run(self._fetch_pieces(pieces))
                pieces.finish()
            finally:
                pieces.close()

    def forget_dense(self) -> None:
        """Remove the dense weights: they are damaged."""
        (self.folder / DENSE_FILE).unlink(missing_ok=True)

    def _current(self) -> Mapping[str, str]:
        """What was fetched last, if its manifest is there."""
        try:
            found = json.loads((self.root / _CURRENT).read_bytes())
            is_there = (self.root / found["folder"] / MANIFEST_FILE).is_file()
            data = (self.root / found["folder"] / MANIFEST_FILE).read_bytes() if is_there else b""
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        is_whole = hashlib.sha256(data).hexdigest()[:16] == found["folder"]
        return found if is_whole and isinstance(found.get("version"), str) else {}

    async def _fetch_all(self, names: list[str], manifest: Manifest) -> None:
        gate = asyncio.Semaphore(_NUM_AT_ONCE)

        async def fetch(name: str) -> None:
            async with gate:
                parts = [
                    await self.files.read(name, start, min(start + _PIECE_BYTES, manifest.files[name]))
                    for start in range(0, manifest.files[name], _PIECE_BYTES)
                ]
            data = b"".join(part.data for part in parts)
            if checksum(data) != manifest.checksums[name]:
                raise CorruptStoreError(
                    f"{self.files.address.of(name)}: differs from what {MANIFEST_FILE} says;"
                    " upload the store anew"
                )
            with _writing(self.folder):
                replace_file(self.folder / name, data)

        await _all_or_none([fetch(name) for name in names])

    async def _fetch_pieces(self, pieces: _Pieces) -> None:
        gate = asyncio.Semaphore(_NUM_AT_ONCE)

        async def fetch(index: int) -> None:
            async with gate:
                start, stop = pieces.span(index)
                pieces.write(index, (await self.files.read(DENSE_FILE, start, stop)).data)

        await _all_or_none([fetch(index) for index in pieces.missing()])


class _Pieces:
    """A file that comes piece by piece, in any order, beside its place; a byte for each says what is there.

    What a crash left is believed: the checksums inside the file are compared when it is read.
    """

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path, self._num_bytes = path, num_bytes
        self._partial = path.with_name(f"{path.name}.partial")
        self._done = path.with_name(f"{path.name}.pieces")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        count = -(-num_bytes // _PIECE_BYTES)
        is_resumed = self._partial.is_file() and self._partial.stat().st_size == num_bytes
        self._data_file = os.open(self._partial, flags, 0o644)
        self._done_file = os.open(self._done, flags | (0 if is_resumed else os.O_TRUNC), 0o644)
        os.ftruncate(self._data_file, num_bytes)
        os.ftruncate(self._done_file, count)

    def span(self, index: int) -> tuple[int, int]:
        return index * _PIECE_BYTES, min((index + 1) * _PIECE_BYTES, self._num_bytes)

    def missing(self) -> list[int]:
        count = -(-self._num_bytes // _PIECE_BYTES)
        return [index for index, mark in enumerate(os.pread(self._done_file, count, 0)) if not mark]

    def write(self, index: int, data: Buffer) -> None:
        os.pwrite(self._data_file, data, self.span(index)[0])
        os.pwrite(self._done_file, b"\1", index)

    def finish(self) -> None:
        sync_file(self._data_file)
        self._partial.rename(self._path)
        self._done.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._data_file)
        os.close(self._done_file)


def copy_of(address: Address, files: RemoteFiles) -> LocalCopy:
    """The place of an address in the user's cache."""
    last = re.sub(r"[^\w.-]+", "-", str(address).rsplit("/", 1)[-1])[:40]
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:12]
    return LocalCopy(files, cache_folder() / f"{last}-{digest}")


async def _all_or_none(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _is_there(path: Path, manifest: Manifest, name: str) -> bool:
    if not path.is_file() or path.stat().st_size != manifest.files[name]:
        return False
    return checksum(path.read_bytes()) == manifest.checksums[name]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror}; choose another cache by {HOME}"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time fetches."""
    path = folder / "fetching"
    descriptor = held = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        held = take_lock(descriptor, path, waits=True)
        yield
    finally:
        for mine in {descriptor, held}:
            os.close(mine)
