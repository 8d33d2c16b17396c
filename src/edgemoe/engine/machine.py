"""Facts of this machine that the engine must know: cores, memory, and what a cgroup leaves of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemoe.native import active_isa, available_isas, get_num_threads

_PAGE = os.sysconf("SC_PAGE_SIZE")
# cgroup v1 writes a number near 2^63 where there is no limit.
_UNLIMITED = 1 << 60


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
        num_cpus=len(os.sched_getaffinity(0)),
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


def cgroup_room() -> tuple[int, int] | None:
    """(limit, what is left of it) of the tightest memory cgroup above this process, v1 or v2."""
    rooms = []
    for folder in _cgroup_folders():
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _read_int(folder / limit_file), _read_int(folder / usage_file)
            if limit is not None and usage is not None and limit < _UNLIMITED:
                rooms.append((limit, max(0, limit - usage)))
    return min(rooms, key=lambda room: room[1]) if rooms else None


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def peak_resident_bytes() -> int:
    """The most memory this process has had so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resident_bytes()


def _cgroup_folders() -> Iterator[Path]:
    """Folders of the memory controller from this process's group up to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        folder = root / path.lstrip("/")
        yield folder
        yield from (parent for parent in folder.parents if parent == root or root in parent.parents)


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _meminfo() -> dict[str, int]:
    """Fields of /proc/meminfo in bytes."""
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        fields[name] = int(value.split()[0]) * 1024
    return fields


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
