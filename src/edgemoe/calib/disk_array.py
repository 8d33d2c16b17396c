"""Arrays in a file, written through a memory map."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.errors import RequestError
from edgemoe.system import reserve_room
from edgemoe.units import format_size


def new_disk_array(path: Path, dtype: type[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """An array in a new file, all of which is there: writing to the map of a full disk kills the process.

    Raises:
        RequestError: the disk is full.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    try:
        with path.open("r+b") as file:
            reserve_room(file.fileno(), path.stat().st_size)
    except OSError as error:
        path.unlink()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RequestError(
            f"{path}: disk full; it takes {format_size(array.nbytes)}, free some space or give less text"
        ) from None
    return array
