"""Files of a checkpoint while they are read: one descriptor each, and none may change meanwhile.

A conversion lasts hours and opens a file when it first needs it. One that another program writes or replaces
in that time would give a store of two models.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgemoe.safetensors_header import read_exactly

# Size and time of change (ns) of a file; its number is another with every look on some file systems.
_State = tuple[int, int]


class OpenFiles:
    """Reads parts of files that were ``note``d before their headers were read. Not thread-safe."""

    def __init__(self) -> None:
        self._states: dict[Path, _State] = {}
        self._descriptors: dict[Path, int] = {}

    def note(self, path: Path) -> None:
        """Remember a file as it is; what is read of it must be of this state.

        Raises:
            OSError: it cannot be looked at.
        """
        self._states[path] = _state(os.stat(path))

    def read(self, path: Path, num_bytes: int, offset: int) -> bytes:
        """A part of a file that was noted.

        Raises:
            OSError: it cannot be read, or has changed since.
            EOFError: it ends before.
        """
        if path not in self._descriptors:
            self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        descriptor = self._descriptors[path]
        try:
            return read_exactly(descriptor, num_bytes, offset)
        finally:
            if _state(os.fstat(descriptor)) != self._states[path]:
                raise OSError("the file has changed meanwhile; let it be finished, and repeat the command")

    def close(self) -> None:
        """Close all of them; later calls do nothing."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


def _state(stat: os.stat_result) -> _State:
    return stat.st_size, stat.st_mtime_ns
