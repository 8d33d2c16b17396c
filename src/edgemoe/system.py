"""What operating systems do differently, for Python: nothing else here asks which one this is.

Compiled code has its own (``native/platform``). macOS has no posix_fadvise, posix_fallocate, fdatasync and
O_DIRECT, its fsync leaves data in the drive's cache, and it counts the peak of memory in bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_PIECE_BYTES = 1 << 20


def drop_from_cache(descriptor: int, offset: int = 0, num_bytes: int = 0) -> None:
    """Keep no copy in the page cache, which counts against a memory cgroup; 0 bytes: up to the file's end.

    A hint: some file systems refuse it, and macOS, which has no such limits, knows none.
    """
    if sys.platform != "darwin":
        with suppress(OSError):
            os.posix_fadvise(descriptor, offset, num_bytes, os.POSIX_FADV_DONTNEED)


def sync_file(descriptor: int) -> None:
    """Force a file, or a folder's names, to disk.

    Raises:
        OSError: the disk is full or failed.
    """
    if sys.platform == "darwin":
        # Where the file system, one over a network, cannot say so to its drive, fsync does what can be done.
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Force a file's bytes to disk, if not all that is known of them; errors as ``sync_file``."""
    if sys.platform == "darwin":
        sync_file(descriptor)
    else:
        os.fdatasync(descriptor)


def reserve_room(descriptor: int, num_bytes: int) -> None:
    """Make the first bytes of a file be there on disk. What is in them stays, and zeros follow.

    Raises:
        OSError: the disk is full.
    """
    if sys.platform != "darwin":
        os.posix_fallocate(descriptor, 0, num_bytes)
        return
    for offset in range(0, num_bytes, _PIECE_BYTES):
        size = min(_PIECE_BYTES, num_bytes - offset)
        piece = os.pread(descriptor, size, offset).ljust(size, b"\0")
        if os.pwrite(descriptor, piece, offset) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_uncached(path: Path, flags: int) -> int:
    """A descriptor whose reads and writes go around the page cache where the file system allows it.

    Raises:
        OSError: as os.open.
    """
    flags |= os.O_CLOEXEC
    if sys.platform == "darwin":
        descriptor = os.open(path, flags, 0o644)
        fcntl.fcntl(descriptor, fcntl.F_NOCACHE, 1)
        return descriptor
    try:
        return os.open(path, flags | os.O_DIRECT, 0o644)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags, 0o644)


def peak_memory_bytes() -> int:
    """The most memory that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
