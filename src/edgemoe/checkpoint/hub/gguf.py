"""A GGUF file on the Hub: its beginning is fetched, tensors when they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.gguf import GgufCheckpoint, GgufTensor, names_of_parts, read_header
from edgemoe.checkpoint.hub.folder import write_skeleton
from edgemoe.checkpoint.hub.remote import Pieces, Remote
from edgemoe.errors import CheckpointError
from edgemoe.units import MIB

# An expert's three matrices lie in three tensors, which are read by turns: pieces of each, with those ahead.
_PIECE_BYTES = 4 * MIB
_NUM_PIECES = 12
# A beginning ends where its last tensor has been described; a vocabulary takes some megabytes of it.
_HEADER_PIECE_BYTES = MIB


class HubGguf(GgufCheckpoint):
    """One GGUF file on the Hub, or all files of a split one when any of them is named."""

    def __init__(self, folder: Path, file: str, remote: Remote) -> None:
        """``folder`` is where their beginnings are kept.

        Raises:
            CheckpointError: as ``GgufCheckpoint``, or a file cannot be fetched.
        """
        self._root = folder
        parts = names_of_parts(file)
        for part in parts:
            if part not in remote.sizes:
                raise CheckpointError(f"{remote.repo}:{part}: has no such file")
            if not (folder / part).exists():
                write_skeleton(folder / part, _fetch_header(remote, part), remote.sizes[part])
        self._pieces = Pieces(remote, _PIECE_BYTES, _NUM_PIECES)
        super().__init__(folder / parts[0])

    def close(self) -> None:
        """Stop fetching."""
        self._pieces.close()
        super().close()

    def _read_raw(self, tensor: GgufTensor, num_bytes: int, offset: int) -> bytes:
        file = tensor.path.relative_to(self._root).as_posix()
        run = range(tensor.offset, tensor.offset + tensor.num_bytes)
        return self._pieces.read(file, num_bytes, offset, run)


def _fetch_header(remote: Remote, file: str) -> bytes:
    start = _Beginning(remote, file)
    read_header(io.BufferedReader(start, _HEADER_PIECE_BYTES), remote.sizes[file], Path(file))
    return bytes(start.data)


class _Beginning(io.RawIOBase):
    """A file on the Hub that is read forward; ``data`` is what has been read."""

    def __init__(self, remote: Remote, file: str) -> None:
        self._remote, self._file = remote, file
        self.data = bytearray()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        start = len(self.data)
        stop = min(start + len(buffer), self._remote.sizes[self._file])
        if stop > start:
            self.data += self._remote.fetch(self._file, start, stop)
            buffer[: stop - start] = self.data[start:]
        return stop - start
