"""Between the room for states in memory and a folder of them on disk: what is read once stays known.

A text that has ended is written when its room in memory is about to be needed, when nothing else is to be
done, and when the model is closed; it is read back when a prompt has more in common with it than with any in
memory. Reading a state back is to the bit what computing it again would give.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from edgemoe.engine.holding import Holding
from edgemoe.engine.parked_files import ParkedFiles
from edgemoe.engine.scheduler import Cancelled
from edgemoe.engine.state_file import state_num_bytes, write_state
from edgemoe.engine.state_pool import StatePool
from edgemoe.errors import CorruptStoreError, RequestError

log = logging.getLogger("edgemoe.parking")

# So few tokens more are read again rather than fetched, and shorter texts are not written.
FEWEST_TOKENS = 32
FEW_TEXTS = 4
# After a failed writing, such as on a full disk, nothing is written for so long.
PAUSE_S = 60.0


class Parking:
    """Parks the texts of one model that has no encoder. Thread-safe."""

    def __init__(self, pool: StatePool, folder: Path, max_bytes: int, weights_id: str) -> None:
        """Raises RequestError: the folder cannot be used."""
        self._pool = pool
        self._weights_id = weights_id
        self._files = ParkedFiles(folder, max_bytes, weights_id, pool.kv_format)
        self._lock = threading.Lock()  # of the list of files
        self._writing = threading.Lock()
        self._paused_until_s = 0.0
        # Texts, by their length then, that need no file or are worth less than what is there.
        self._declined: weakref.WeakKeyDictionary[Holding, int] = weakref.WeakKeyDictionary()
        self.num_hits = 0
        self.num_tokens_saved = 0

    @property
    def num_bytes(self) -> int:
        """Size of the folder's files."""
        return self._files.num_bytes()

    @property
    def num_texts(self) -> int:
        """Texts of this model in the folder."""
        return self._files.num_texts

    @property
    def has_work(self) -> bool:
        """Whether ``write`` would write something."""
        return any(self._is_wanted(holding) for holding in self._pool.kept())

    def alike(self, token_ids: Sequence[int]) -> list[Sequence[int]]:
        """Parked texts that begin as this one, those with most in common first, and no more than a few."""
        with self._lock:
            return self._files.alike(token_ids, FEWEST_TOKENS)[:FEW_TEXTS]

    def fetch(self, token_ids: Sequence[int], num_slots: int, is_cancelled: Callable[[], bool]) -> None:
        """Before a text that begins so and may have ``num_slots`` tokens is read: write those away whose room
        it will take, and bring back the one that it has most in common with, if that is on disk.

        Raises:
            RequestError: as ``StatePool.borrow``.
        """
        for holding in self._pool.about_to_go(token_ids, num_slots):
            self._write(holding)
        known = self._pool.num_common(token_ids)
        with self._lock:
            candidates = self._files.longest(token_ids)
        for path, num_tokens, num_common in candidates:
            if num_common < known + FEWEST_TOKENS:
                return
            if num_tokens > self._pool.context:
                continue
            if self._pool.reachable(num_tokens, num_common) < num_common:
                continue  # that model cannot go back within a text
            if self._restore(path, is_cancelled):
                if not is_cancelled():
                    self.num_hits += 1
                    self.num_tokens_saved += num_common - known
                return

    def write(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Write every text that has ended and is not there yet, the newest first."""
        for holding in reversed(self._pool.kept()):
            if should_stop():
                return
            self._write(holding)

    def _restore(self, path: Path, is_cancelled: Callable[[], bool]) -> bool:
        with self._lock:
            saved = self._files.open(path)
        if saved is None:
            return False
        try:
            self._pool.restore((), saved.token_ids, saved.fill, is_cancelled)
        except Cancelled:
            return True  # nobody will read on
        except (CorruptStoreError, RequestError) as error:
            with self._lock:
                self._files.drop(path, str(error))
            return False
        self._files.note_use(path)
        return True

    def _is_wanted(self, holding: Holding) -> bool:
        length = len(holding.token_ids)
        if length < FEWEST_TOKENS or time.monotonic() < self._paused_until_s:
            return False
        return self._declined.get(holding) != length and not self._files.holds(holding.token_ids)

    def _write(self, holding: Holding) -> None:
        with self._writing:
            if not self._is_wanted(holding) or not self._pool.pin_kept(holding):
                return
            try:
                self._write_pinned(holding)
            except (RequestError, OSError) as error:
                self._paused_until_s = time.monotonic() + PAUSE_S
                log.warning("a text is not parked: %s", error)
            finally:
                self._pool.unpin(holding)

    def _write_pinned(self, holding: Holding) -> None:
        token_ids, path = list(holding.token_ids), None
        with self._lock:
            if not self._is_covered(token_ids):
                path = self._files.path_for(token_ids, state_num_bytes(holding))
        if path is None:
            self._declined[holding] = len(token_ids)
            return
        write_state(path, holding, self._weights_id, self._pool.kv_format)
        goes_back = self._pool.reachable(len(token_ids), 1) == 1
        with self._lock:
            self._files.added(path, token_ids, replaces_beginnings=goes_back)

    def _is_covered(self, token_ids: Sequence[int]) -> bool:
        """Whether a file has this text and more, and can be taken back to it."""
        longest = self._files.longest([*token_ids, 0])[:1]
        return any(
            num_common == len(token_ids) and self._pool.reachable(num_tokens, num_common) == num_common
            for _, num_tokens, num_common in longest
        )
