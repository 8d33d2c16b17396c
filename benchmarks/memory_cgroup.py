"""A memory cgroup of a given size for one command; version 1 and 2. Swap is off inside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class CgroupUnavailable(Exception):
    """No memory cgroup can be made by this user on this machine; the text says why."""


@dataclass(frozen=True)
class CappedRun:
    """How a command ended inside its cgroup; ``peak_bytes`` is the kernel's count, page cache included."""

    exit_code: int
    stdout: str
    stderr: str
    peak_bytes: int
    num_oom_kills: int
    elapsed_s: float


def run_capped(command: Sequence[str], limit_bytes: int) -> CappedRun:
    """Run a command in a new memory cgroup of exactly this size.

    Raises:
        CgroupUnavailable: no cgroup can be made.
    """
    with memory_group(limit_bytes) as group:
        started = time.perf_counter()
        done = subprocess.run(group.inside(command), capture_output=True, text=True, check=False)
        elapsed_s = time.perf_counter() - started
        return CappedRun(
            done.returncode, done.stdout, done.stderr, group.peak_bytes(), group.num_oom_kills(), elapsed_s
        )


@dataclass(frozen=True)
class Group:
    """A memory cgroup."""

    folder: Path
    is_v2: bool

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command so that it runs in the group, which it enters first: everything it takes is counted."""
        return ["sh", "-c", f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"', "sh", *command]

    def peak_bytes(self) -> int:
        """The kernel's count, page cache included."""
        name = "memory.peak" if self.is_v2 else "memory.max_usage_in_bytes"
        return int((self.folder / name).read_text())

    def num_oom_kills(self) -> int:
        """Processes that the kernel ended for want of memory."""
        return _oom_kills(self.folder / ("memory.events" if self.is_v2 else "memory.oom_control"))


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Group]:
    """A new memory cgroup of exactly this size, until the block ends.

    Raises:
        CgroupUnavailable: no cgroup can be made.
    """
    is_v2 = (_ROOT / "cgroup.controllers").is_file()
    folder = (_ROOT if is_v2 else _ROOT / "memory") / f"edgemoe-benchmark-{os.getpid()}"
    _make(folder, is_v2, limit_bytes)
    try:
        yield Group(folder, is_v2)
    finally:
        _remove(folder)


def drop_caches() -> None:
    """Empty the page cache, where this user may."""
    os.sync()
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def _make(folder: Path, is_v2: bool, limit_bytes: int) -> None:
    try:
        if is_v2:
            (_ROOT / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
        if is_v2:
            (folder / "memory.max").write_text(str(limit_bytes))
            with suppress(OSError):  # kernels without swap accounting
                (folder / "memory.swap.max").write_text("0")
        else:
            (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
            with suppress(OSError):
                (folder / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        _remove(folder)
        raise CgroupUnavailable(f"cannot make a memory cgroup at {folder}: {error.strerror}") from error


def _oom_kills(path: Path) -> int:
    for line in path.read_text().splitlines():
        name, value = line.split()
        if name == "oom_kill":
            return int(value)
    return 0


def _remove(folder: Path) -> None:
    for _ in range(50):  # the kernel needs a moment to let the last task go
        with suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.02)
