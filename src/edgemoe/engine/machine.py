"""Facts of this machine that the engine must know: cores, memory, and what a cgroup leaves of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgemoe.cgroups import cgroup_folders, read_int
from edgemoe.native import (
    active_isa,
    available_isas,
    free_memory_bytes,
    get_num_threads,
    mapped_again_bytes,
    usable_processors,
)
from edgemoe.system import peak_memory_bytes

_PAGE = os.sysconf("SC_PAGE_SIZE")
# cgroup v1 writes a number near 2^63 where there is no limit.
_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class _CgroupKind:
    """Names of a version's files, and of the lines of memory.stat that count what is given up on demand."""

    limits: tuple[str, ...]
    usage: str
    total: str  # before a name: the groups below are counted too
    reclaimable: tuple[str, ...]


_FILE_PAGES = ("inactive_file", "active_file")
_V1 = _CgroupKind(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_", _FILE_PAGES)
# Above memory.high nothing is killed, but every page that is asked for is slowed down: a limit to us.
_V2 = _CgroupKind(("memory.max", "memory.high"), "memory.current", "", (*_FILE_PAGES, "slab_reclaimable"))


@dataclass(frozen=True)
class Machine:
    """What `edgemoe doctor` shows; sizes in bytes, ``cgroup_limit_bytes`` None without a limit."""

    cpu: str
    num_cpus: int
    num_threads: int
    isa: str
    available_isas: list[str]
    memory_bytes: int
    available_memory_bytes: int
    cgroup_limit_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def describe_machine() -> Machine:
    """Look at this machine now."""
    memory = _meminfo()
    limit = cgroup_room()
    return Machine(
        cpu=_cpu_name(),
        num_cpus=usable_processors(),
        num_threads=get_num_threads(),
        isa=active_isa(),
        available_isas=available_isas(),
        memory_bytes=memory["MemTotal"],
        available_memory_bytes=memory["MemAvailable"],
        cgroup_limit_bytes=None if limit is None else limit[0],
    )


def available_memory_bytes() -> tuple[int, str]:
    """What this process may still take, and where that number comes from."""
    available = _meminfo()["MemAvailable"]
    room = cgroup_room()
    if room is not None and room[1] < available:
        return room[1], "left below the cgroup's limit"
    return available, "free on this machine"


def total_memory_bytes() -> tuple[int, str]:
    """The most that this process can ever have, and what sets that limit."""
    total = _meminfo()["MemTotal"]
    limit = min((limit for limit, _ in _cgroup_rooms()), default=total)
    return (limit, "its cgroup allows") if limit < total else (total, "this machine has")


def cgroup_room() -> tuple[int, int] | None:
    """(limit, what is left of it) of the tightest memory cgroup above this process, v1 or v2.

    Pages that only cache files count as left, because the kernel drops them when memory is asked for.
    """
    return min(_cgroup_rooms(), key=lambda room: room[1], default=None)


def _cgroup_rooms() -> Iterator[tuple[int, int]]:
    """(limit, what is left of it) of every memory cgroup above this process that has a limit."""
    for folder in cgroup_folders("memory"):
        for kind in (_V2, _V1):
            limits = [read_int(folder / name) for name in kind.limits]
            known = [limit for limit in limits if limit is not None and limit < _UNLIMITED]
            usage = read_int(folder / kind.usage)
            if known and usage is not None:
                in_use = max(0, usage - _reclaimable_bytes(folder, kind))
                yield min(known), max(0, min(known) - in_use)


def resident_bytes() -> int:
    """Memory of this process now, what texts share once; without /proc, the most it has had."""
    try:
        counted = int(os.pread(_statm(os.getpid()), 128, 0).split()[1]) * _PAGE
        return max(0, counted - mapped_again_bytes())
    except (OSError, ValueError, IndexError):
        return peak_memory_bytes()


@lru_cache(maxsize=1)
def _statm(process_id: int) -> int:
    """A descriptor of /proc/self/statm: every token's statistics read it, which opening would triple."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def peak_resident_bytes() -> int:
    """The most memory this process has had so far, by a count that has what texts share once for each."""
    for name, value in _fields(Path("/proc/self/status")):
        if name == "VmHWM":
            return value
    return peak_memory_bytes()


def _reclaimable_bytes(folder: Path, kind: _CgroupKind) -> int:
    """Bytes of file pages and kernel caches that are counted as used but are given up on demand."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    stat = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    return sum(int(stat.get(f"{kind.total}{name}", stat.get(name, "0"))) for name in kind.reclaimable)


def _meminfo() -> dict[str, int]:
    """MemTotal and MemAvailable in bytes, from the system's own count where /proc hides them."""
    fields = dict(_fields(Path("/proc/meminfo")))
    total = fields.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * _PAGE
    free = fields.get("MemFree", free_memory_bytes())
    # Kernels before 3.14, and some sandboxes, do not say what is available.
    cached = fields.get("Cached", 0) + fields.get("Buffers", 0) - fields.get("Shmem", 0)
    return {"MemTotal": total, "MemAvailable": min(total, fields.get("MemAvailable", free + max(0, cached)))}


def _fields(path: Path) -> Iterator[tuple[str, int]]:
    """Names and bytes of the lines "Name:  12 kB" of a file of /proc; none where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[0].isdigit() and words[1] == "kB":
            yield name, int(words[0]) * 1024


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
