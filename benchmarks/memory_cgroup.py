"""A memory cgroup for one measured process: the kernel, not the program, says whether a cap holds.

    with MemoryCgroup.create(600 * MIB) as group:
        subprocess.run(command, preexec_fn=group.enter)
        print(group.peak_num_bytes(), group.num_oom_kills())

Works with cgroup v1 and v2; ``create`` raises OSError where this process may not make a cgroup.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType

_V1_ROOT = Path("/sys/fs/cgroup/memory")
_V2_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


class MemoryCgroup:
    """One cgroup with a hard limit and no swap; removed when the context ends."""

    def __init__(self, folder: Path, version: int) -> None:
        self._folder = folder
        self.version = version

    @classmethod
    def create(cls, limit_bytes: int) -> MemoryCgroup:
        """A new cgroup whose processes together may hold ``limit_bytes``.

        Raises:
            OSError: not allowed here, or no memory controller.
        """
        problems = []
        for parent, version in _parents():
            folder = parent / f"edgemoe-{os.getpid()}-{time.monotonic_ns()}"
            try:
                if version == 2:
                    _enable_memory(parent)
                folder.mkdir()
                group = cls(folder, version)
                try:
                    group._set_limit(limit_bytes)
                except OSError:
                    folder.rmdir()
                    raise
                return group
            except OSError as error:
                problems.append(f"{parent}: {error.strerror}")
        raise OSError("no memory cgroup can be made here: " + ("; ".join(problems) or "none is mounted"))

    def enter(self) -> None:
        """Move the calling process in; meant for ``preexec_fn``."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak_num_bytes(self) -> int | None:
        """The most the cgroup ever held, page cache included; None where the kernel does not tell."""
        path = self._folder / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(path.read_text()) if path.exists() else None

    def num_oom_kills(self) -> int:
        """Processes killed because the limit was reached."""
        path = self._folder / ("memory.oom_control" if self.version == 1 else "memory.events")
        fields = dict(line.split() for line in path.read_text().splitlines())
        return int(fields.get("oom_kill", 0))

    def __enter__(self) -> MemoryCgroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A process that has just ended can keep its cgroup busy for a moment.
        for _ in range(50):
            with contextlib.suppress(OSError):
                self._folder.rmdir()
                return
            time.sleep(0.1)

    def _set_limit(self, limit_bytes: int) -> None:
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        (self._folder / name).write_text(str(limit_bytes))
        swap = "memory.memsw.limit_in_bytes" if self.version == 1 else "memory.swap.max"
        value = limit_bytes if self.version == 1 else 0
        if (self._folder / swap).exists():
            (self._folder / swap).write_text(str(value))


def _parents() -> list[tuple[Path, int]]:
    """Cgroups in which one may be made: our own, the one above it, the root of the mount."""
    parents: list[tuple[Path, int]] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own = path.lstrip("/")
        if "memory" in controllers.split(","):
            parents += [(folder, 1) for folder in _upwards(_V1_ROOT, own)]
        elif not controllers:
            parents += [(folder, 2) for root in _V2_ROOTS for folder in _upwards(root, own)]
    return [(folder, version) for folder, version in parents if (folder / "cgroup.procs").exists()]


def _upwards(root: Path, own: str) -> list[Path]:
    return list(dict.fromkeys([root / own, (root / own).parent if own else root, root]))


def _enable_memory(parent: Path) -> None:
    if "memory" not in (parent / "cgroup.controllers").read_text().split():
        raise OSError(0, "no memory controller")
    if "memory" not in (parent / "cgroup.subtree_control").read_text().split():
        (parent / "cgroup.subtree_control").write_text("+memory")
