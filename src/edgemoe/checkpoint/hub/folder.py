"""A folder on the Hub with safetensors: small files and headers are fetched, tensors when they are read."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from edgemoe.checkpoint.folder import FolderCheckpoint
from edgemoe.checkpoint.hub.remote import Pieces, Remote
from edgemoe.errors import CheckpointError
from edgemoe.units import MIB

_PIECE_BYTES = 8 * MIB  # large enough for a connection to reach its speed, small beside any budget
_NUM_PIECES = 6  # held at a time: the present one, those fetched ahead, and what two readers left
_FIRST_HEADER_BYTES = MIB
_MOST_HEADER_BYTES = 100 * MIB  # what the safetensors library accepts
# Beside the weights: what the reader of a folder looks at. Larger files are none of these.
_SIDE = re.compile(r"[^/]+\.(json|jinja|txt|model)|additional_chat_templates/[^/]+\.jinja")
_MOST_SIDE_BYTES = 64 * MIB


class HubCheckpoint(FolderCheckpoint):
    """A folder whose weight files hold their headers alone; tensors are fetched when they are read."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        """``folder`` is where the small files are kept."""
        _make_skeleton(folder, remote)
        super().__init__(folder)
        self._root = folder
        self._pieces = Pieces(remote, _PIECE_BYTES, _NUM_PIECES)

    @property
    def num_bytes(self) -> int:
        """What all tensors take on the Hub."""
        return sum(info.num_bytes for info in self.tensors().values())

    def close(self) -> None:
        """Stop fetching."""
        self._pieces.close()
        super().close()

    def _read_raw(self, path: Path, num_bytes: int, offset: int) -> bytes:
        return self._pieces.read(path.relative_to(self._root).as_posix(), num_bytes, offset)


def write_skeleton(path: Path, data: bytes, num_bytes: int) -> None:
    """A file of so many bytes that has only its first ones, and takes no more room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as out:
        out.write(data)
        out.truncate(num_bytes)
    partial.rename(path)


def _make_skeleton(folder: Path, remote: Remote) -> None:
    """The small files, and for each weight file its header in a file of its size without contents."""
    for file, size in remote.sizes.items():
        path = folder / file
        if path.exists() or ".." in path.parts:
            continue
        if "/" not in file and file.endswith(".safetensors"):
            write_skeleton(path, _fetch_header(remote, file), size)
        elif _SIDE.fullmatch(file) and size <= _MOST_SIDE_BYTES:
            write_skeleton(path, remote.fetch(file, 0, size) if size else b"", size)


def _fetch_header(remote: Remote, file: str) -> bytes:
    size = remote.sizes[file]
    data = remote.fetch(file, 0, min(_FIRST_HEADER_BYTES, size))
    length = 8 + struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else size + 1
    if length > min(size, _MOST_HEADER_BYTES):
        raise CheckpointError(f"{file}: is no safetensors file; fetch another revision")
    return (data + remote.fetch(file, len(data), length))[:length] if length > len(data) else data[:length]
