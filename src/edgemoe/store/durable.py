"""Files and folders that survive a power cut, and a lock that one process at a time holds."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

import xxhash

from edgemoe.errors import ConversionError, EdgeMoEError
from edgemoe.system import sync_file

LOCK_FILE = "lock"
# Characters of a name, and as many of its ending, in the name of what replaces it; 255 bytes are the most.
_NAME_SHOWN = 20
# How a file system says that it has no locks: Lustre mounted without "flock", NFS without its lock service.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# What a full disk or a limit is called, and what to do about it.
_DISK_FULL = ("disk full", "free some space")
_CAUSES = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: ("files of this size are not allowed here", "raise the limit (ulimit -f)"),
    errno.EMFILE: ("no more files can be opened", "raise the limit (ulimit -n)"),
}


@contextmanager
def failing_clearly(path: Path, then: str = "") -> Iterator[None]:
    """A failed system call becomes the ConversionError that says what to do, and what to do ``then``."""
    try:
        yield
    except EdgeMoEError:
        raise
    except OSError as error:
        cause, remedy = _CAUSES.get(error.errno or 0, (f"cannot be written: {error.strerror}", ""))
        remedies = " and ".join(filter(None, (remedy, then)))
        raise ConversionError(f"{path}: " + "; ".join(filter(None, (cause, remedies)))) from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file and force it to disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        sync_file(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Give a file this content: it has the old one, or none, until the new one is whole and on disk.

    Raises:
        OSError: the disk is full or failed. Nothing is left of the attempt, nor of one that is interrupted.
    """
    if path.exists() and not path.is_file():  # a device, a pipe
        path.write_bytes(data)
        return
    with replacing(path) as new:
        write_file(new, data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file that is written meanwhile, and takes the place of ``path`` at the end.

    A link stays, and so does the disk that it chose.

    Raises:
        OSError: the disk is full or failed. Nothing is left of the attempt, nor of one that is interrupted.
    """
    path = Path(os.path.realpath(path))
    # Named by who writes it: another thread or process may be replacing the same file.
    who = f"{os.getpid()}-{get_ident()}"
    new = path.with_name(f"{path.stem[:_NAME_SHOWN]}.{who}{path.suffix[:_NAME_SHOWN]}.new")
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Force a folder's names to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path, *, waits: bool = False) -> int:
    """Make a folder if it is not there and lock it; returns the descriptor that holds the lock.

    ``waits``: until nobody else holds it.

    Raises:
        ConversionError: another process holds it.
    """
    descriptor = None
    while descriptor is None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(folder / LOCK_FILE, folder, waits)
    return descriptor


def lock_file(path: Path) -> int:
    """Make a file if it is not there and lock it; returns the descriptor that holds the lock.

    Raises:
        ConversionError: another process holds it.
    """
    descriptor = None
    while descriptor is None:
        descriptor = _lock(path, path, waits=False)
    return descriptor


def _lock(path: Path, what: Path, waits: bool) -> int | None:
    """A descriptor that holds a file's lock; None where the file has another name by then, or none."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    held = descriptor
    try:
        held = take_lock(descriptor, path, waits=waits)
        # Otherwise its owner has just finished and renamed it, or the folder, lock and all.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return os.dup(held)
    except BlockingIOError:
        raise ConversionError(f"{what}: another process is writing it; wait for it") from None
    finally:  # interrupted while it waits, too; the lock goes with its last descriptor
        for mine in {descriptor, held}:
            os.close(mine)
    return None


def take_lock(descriptor: int, path: Path, *, waits: bool) -> int:
    """Lock an open file; returns the descriptor that holds the lock.

    It is another one where the file system has no locks: of an empty file in this machine's temporary folder,
    which keeps the processes of one user and machine apart, and stays there.

    Raises:
        BlockingIOError: another process holds it, and nobody is to wait.
        OSError: nothing can be locked.
    """
    how = fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.flock(descriptor, how)
        return descriptor
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    name = xxhash.xxh3_64_hexdigest(os.fsencode(os.path.realpath(path)))
    beside = Path(tempfile.gettempdir(), f"edgemoe-{os.getuid()}-{name}.lock")
    held = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, how)
    except BaseException:
        os.close(held)
        raise
    return held
