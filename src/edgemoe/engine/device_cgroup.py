"""A cgroup that bounds this process's storage and memory to those of another device.

The kernel counts every read, those of the page cache too. It does so in slices of 100 ms: what a slice may
carry can come at once. Expert reads are therefore paced by their reader as well (store/expert_reader.py).
Versions 1 and 2; it takes the right to make cgroups, which root has. A process that is killed leaves its
group behind, empty; the next one to bound itself removes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "edgemoe-device-"  # and the number of the process


class CgroupUnavailable(Exception):
    """No such cgroup can be made here; the text says why."""


@dataclass(frozen=True)
class _Group:
    """A cgroup to be: its folder, where the process is now, and the limits by the name of their file."""

    folder: Path
    origin: Path
    limits: Mapping[str, str]


@contextmanager
def bounded(path: Path, bytes_per_s: float, memory_bytes: int | None = None) -> Iterator[None]:
    """Hold this process, all threads, to a rate of reading from the disk of ``path``, and to this memory.

    Memory that was taken before is not counted by version 1.

    Raises:
        CgroupUnavailable: nothing is bounded.
    """
    groups = _plan(_disk(path), int(bytes_per_s), memory_bytes)
    entered: list[_Group] = []
    try:
        for group in groups:
            entered.append(group)
            _enter(group)
        yield
    finally:
        for group in entered:
            _leave(group)


def _plan(disk: str, bytes_per_s: int, memory_bytes: int | None) -> list[_Group]:
    name = f"{PREFIX}{os.getpid()}"
    if (ROOT / "cgroup.controllers").is_file():
        limits = {"io.max": f"{disk} rbps={bytes_per_s}"}
        if memory_bytes is not None:
            limits["memory.max"] = str(memory_bytes)
        origin = ROOT / _own_path("")
        # A group that has processes may not share out controllers: the new one stands beside it.
        parent = origin if origin == ROOT else origin.parent
        return [_Group(parent / name, origin, limits)]
    blkio = ROOT / "blkio" / _own_path("blkio")
    groups = [_Group(blkio / name, blkio, {"blkio.throttle.read_bps_device": f"{disk} {bytes_per_s}"})]
    if memory_bytes is not None:
        memory = ROOT / "memory" / _own_path("memory")
        groups.append(_Group(memory / name, memory, {"memory.limit_in_bytes": str(memory_bytes)}))
    return groups


def _disk(path: Path) -> str:
    """Number of the whole disk under a path, as "major:minor"; limits are not taken for partitions."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    entry = Path("/sys/dev/block") / number
    if not entry.exists():
        raise CgroupUnavailable(f"{path} is on no disk of this machine")
    if (entry / "partition").exists():
        return (entry.resolve().parent / "dev").read_text(encoding="utf-8").strip()
    return number


def _own_path(controller: str) -> str:
    """Where a controller ("": version 2) has this process, relative to the root of its hierarchy."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    raise CgroupUnavailable(f"this system has no cgroup controller {controller!r}")


def _enter(group: _Group) -> None:
    _sweep(group.folder.parent)
    try:
        for controller in ("io", "memory") if "io.max" in group.limits else ():
            (group.folder.parent / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
        group.folder.mkdir()
        for file, value in group.limits.items():
            (group.folder / file).write_text(value, encoding="ascii")
        (group.folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        raise CgroupUnavailable(f"no cgroup can be made at {group.folder}: {error.strerror}") from error


def _sweep(parent: Path) -> None:
    """Remove the groups of processes that are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        if not Path("/proc", folder.name.removeprefix(PREFIX)).exists():
            with suppress(OSError):
                folder.rmdir()


def _leave(group: _Group) -> None:
    with suppress(OSError):
        (group.origin / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    for _ in range(50):  # the kernel needs a moment to let the last thread go
        with suppress(OSError):
            group.folder.rmdir()
        if not group.folder.exists():
            return
        time.sleep(0.02)
