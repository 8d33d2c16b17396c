"""Files of texts' states in a folder of bounded size, found by the tokens with which a text begins.

    FOLDER/<weights>.<keys and values>.v<version>/<hash of the token ids>-<number of tokens>.state

Each file is what ``state_file`` writes: whole or not there, with a checksum, and for one store only. Several
models, and several processes, may share the folder: a file that another has removed is no error. Names that
are not of this pattern are left alone. When the bound is reached, what is worth least goes: see ``worth``.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from edgemoe.engine.state_file import VERSION, SavedState, open_state
from edgemoe.errors import RequestError, StoreError

log = logging.getLogger("edgemoe.parking")

MODEL_FOLDER = re.compile(r"[0-9a-f]{16}\.\w+\.v\d+")
FILE_NAME = re.compile(r"([0-9a-f]{32})-(\d+)\.state")
HOUR_S = 3600.0
# A file half-written by a process that died; no writing takes so long.
ABANDONED_S = HOUR_S
# Their tokens are kept in memory, four bytes each.
MAX_TEXTS = 1000


def worth(num_tokens: int, num_bytes: int, age_s: float) -> float:
    """How much a file is worth its room: tokens that need not be read per byte, less the longer it lies."""
    return num_tokens / num_bytes / (age_s + HOUR_S)


@dataclass(frozen=True)
class ParkedFile:
    """A file as its name and its inode tell it."""

    path: Path
    num_tokens: int
    num_bytes: int
    used_s: float  # by the wall clock

    def worth(self, now_s: float) -> float:
        """See the function."""
        return worth(self.num_tokens, self.num_bytes, max(0.0, now_s - self.used_s))


class ParkedFiles:
    """The files of one model's texts. Used by one thread at a time."""

    def __init__(self, folder: Path, max_bytes: int, weights_id: str, kv_format: str) -> None:
        """Make the folder, readable by its owner only, and look at what is there.

        Raises:
            RequestError: the folder cannot be used.
        """
        self._root, self._max_bytes = folder, max_bytes
        self._weights_id, self._kv_format = weights_id, kv_format
        self._folder = folder / f"{weights_id}.{kv_format}.v{VERSION}"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            raise RequestError(f"{folder}: texts cannot be parked there: {error.strerror}") from error
        self._texts: dict[Path, NDArray[np.int32]] = {}
        self._look()

    @property
    def num_texts(self) -> int:
        """Texts of this model."""
        return len(self._texts)

    def num_bytes(self) -> int:
        """Size of all files in the folder, those of other models too."""
        return sum(file.num_bytes for file in self._all())

    def longest(self, token_ids: Sequence[int]) -> list[tuple[Path, int, int]]:
        """Files of texts that begin alike, with how many tokens they have in all and in common; the most
        first. The last token given does not count.
        """
        wanted = np.asarray(token_ids[:-1], np.int32)
        found = [(path, len(ids), _num_common(ids, wanted)) for path, ids in self._texts.items()]
        return sorted((entry for entry in found if entry[2]), key=lambda entry: -entry[2])

    def alike(self, token_ids: Sequence[int], least: int) -> list[Sequence[int]]:
        """Texts that have so many tokens in common with one, the most first."""
        found = [self._texts[path] for path, _, num_common in self.longest(token_ids) if num_common >= least]
        return [ids.tolist() for ids in found]

    def holds(self, token_ids: Sequence[int]) -> bool:
        """Whether exactly this text is there."""
        return self._path(np.asarray(token_ids, np.int32)) in self._texts

    def open(self, path: Path) -> SavedState | None:
        """A file's header, checked; None, after a line in the log, if it is damaged or gone."""
        try:
            return open_state(path, self._weights_id, self._kv_format)
        except (RequestError, StoreError) as error:
            self.drop(path, str(error))
            return None

    def drop(self, path: Path, why: str) -> None:
        """Remove a file that is of no use, and say so."""
        log.warning("a parked text is ignored: %s", why)
        self._remove(path)

    def note_use(self, path: Path) -> None:
        """It was of use now."""
        with suppress(OSError):
            os.utime(path)

    def path_for(self, token_ids: Sequence[int], num_bytes: int) -> Path | None:
        """Where to write a text, once there is room for a file of so many bytes; None if it is worth less
        than what would have to go.

        Raises:
            OSError: somebody took the folder away, and it cannot be made again.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now_s = time.time()
        files = sorted(self._all(), key=lambda file: file.worth(now_s))
        free = self._max_bytes - sum(file.num_bytes for file in files) - num_bytes
        going: list[ParkedFile] = []
        for file in files:
            if free >= 0 and len(files) - len(going) < MAX_TEXTS:
                break
            going.append(file)
            free += file.num_bytes
        is_better = all(file.worth(now_s) < worth(len(token_ids), num_bytes, 0) for file in going)
        if free < 0 or not is_better:
            return None
        for file in going:
            self._remove(file.path)
        return self._path(np.asarray(token_ids, np.int32))

    def added(self, path: Path, token_ids: Sequence[int], replaces_beginnings: bool) -> None:
        """A text was written; those it begins with are of no more use if it can be taken back to them."""
        new = np.asarray(token_ids, np.int32)
        if replaces_beginnings:
            for old, ids in list(self._texts.items()):
                if len(ids) < len(new) and _num_common(ids, new) == len(ids):
                    self._remove(old)
        self._texts[path] = new

    def _look(self) -> None:
        strange = 0
        for path in sorted(self._folder.iterdir()):
            name = FILE_NAME.fullmatch(path.name)
            if name is None:
                strange += not _is_abandoned(path)
            elif (saved := self.open(path)) is not None:
                ids = np.asarray(saved.token_ids, np.int32)
                if path != self._path(ids) or saved.prompt:
                    self.drop(path, f"{path}: not the text of its name")
                else:
                    self._texts[path] = ids
        if strange:
            log.warning("%s: %d files there are no parked texts; they are left alone", self._folder, strange)

    def _path(self, ids: NDArray[np.int32]) -> Path:
        return self._folder / f"{xxhash.xxh3_128_hexdigest(ids.tobytes())}-{len(ids)}.state"

    def _all(self) -> Iterator[ParkedFile]:
        """Files of all models, by what is in the folder now."""
        for folder in _inside(self._root):
            if MODEL_FOLDER.fullmatch(folder.name):
                for path in _inside(folder):
                    if (name := FILE_NAME.fullmatch(path.name)) and (stat := _stat(path)):
                        yield ParkedFile(path, int(name[2]), max(1, stat.st_size), stat.st_mtime)

    def _remove(self, path: Path) -> None:
        self._texts.pop(path, None)
        with suppress(OSError):
            path.unlink()


def _num_common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


def _inside(folder: Path) -> list[Path]:
    """What a folder holds; nothing if it is none or has gone."""
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _stat(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None


def _is_abandoned(path: Path) -> bool:
    """Whether it is what a writer left that died; then it is removed."""
    stat = _stat(path)
    if stat is None or not path.name.endswith(".state.new"):
        return False
    if time.time() - stat.st_mtime > ABANDONED_S:
        with suppress(OSError):
            path.unlink()
    return True
