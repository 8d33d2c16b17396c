"""What writing an export asks of a disk: room, and failures that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgemoe.errors import ConversionError
from edgemoe.native import ByteArray
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


@contextlib.contextmanager
def failing_clearly(path: Path) -> Iterator[None]:
    """A failed system call becomes the ConversionError that says what to do."""
    try:
        yield
    except ConversionError:
        raise
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "disk full; free some space"
        elif error.errno == errno.EFBIG:
            what = "files of this size are not allowed here; raise the limit (ulimit -f)"
        raise ConversionError(f"{path}: {what}") from error
