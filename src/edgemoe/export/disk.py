"""What writing an export asks of a disk: room, and whole writes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from edgemoe.errors import ConversionError
from edgemoe.native import ByteArray
from edgemoe.store.durable import failing_clearly
from edgemoe.units import ceil_size, format_size

# What a file system takes besides the tensors, and what stands beside them: a vocabulary, a configuration.
_MARGIN_BYTES = 64 << 20


def check_room(path: Path, num_bytes: int) -> None:
    """Look whether so many bytes have room where ``path`` is to be.

    Raises:
        ConversionError: they have none, or there is no such folder.
    """
    with failing_clearly(path):
        stat = os.statvfs(path.absolute().parent)
    needed, free = num_bytes + _MARGIN_BYTES, stat.f_bavail * stat.f_frsize
    if needed > free:
        raise ConversionError(
            f"{path}: needs {format_size(needed)}, {format_size(free)} are free;"
            f" free {ceil_size(needed - free)} or choose another place"
        )


def write_at(descriptor: int, data: ByteArray, offset: int) -> None:
    """Write all bytes of an array from an offset of the file on."""
    view = np.ascontiguousarray(data).reshape(-1).data
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
