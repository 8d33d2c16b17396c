"""The mark in the folder of some work, which says whose work it is: a command's that has not ended.

A job that nothing else ends with its command looks after the mark, and ends when it is gone. A command that
goes on with the work of one that was killed takes the mark away, and waits for such jobs.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_FILE = "workers"
# How often a job looks, and how long a command waits: storage may show late that the mark is gone. A job that
# was stopped lives longer; it writes the same bytes to the same files then.
_LOOK_S = 1.0
_PATIENCE_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Mark:
    """As a worker is told of it; it can be pickled."""

    path: Path
    token: str

    def is_seen(self) -> bool:
        """Whether it is there, of this command and no other.

        Raises:
            OSError: the storage does not say.
        """
        try:
            return self.path.read_text(encoding="utf-8") == self.token
        except FileNotFoundError:
            return False

    @contextmanager
    def ends_this_process(self) -> Iterator[None]:
        """Meanwhile this process ends, whatever it does, once the mark is gone."""
        try:
            held = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # who sees no mark does no work
            yield
            return
        with suppress(OSError):  # some storage has no locks
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        done = threading.Event()
        threading.Thread(target=self._end_without, args=(done,), daemon=True).start()
        try:
            yield
        finally:
            done.set()
            os.close(held)

    def _end_without(self, done: threading.Event) -> None:
        while not done.wait(_LOOK_S):
            with suppress(OSError):  # of a network, perhaps for a moment
                if not self.is_seen():
                    os._exit(1)


@contextmanager
def marked(folder: Path) -> Iterator[Mark]:
    """The folder has a new mark meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = Mark(folder.absolute() / _FILE, secrets.token_hex(8))
    mark.path.write_text(mark.token, encoding="utf-8")
    try:
        yield mark
    finally:
        mark.path.unlink(missing_ok=True)


def end_earlier_workers(folder: Path) -> None:
    """End the jobs of a command that was killed, and wait for that. Nobody but the caller works here now."""
    path = folder / _FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there is none
        return
    path.unlink(missing_ok=True)
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(_POLL_S)
    except OSError:  # this storage has no locks
        return
    finally:
        os.close(descriptor)
