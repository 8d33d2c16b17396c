"""Control groups of Linux that this process is in, and the processor time that they allow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def allowed_processors() -> float | None:
    """Processors' worth of time that the tightest group above this process allows, such as 1.5; None without
    a limit.
    """
    return min(filter(None, map(_quota, cgroup_folders("cpu"))), default=None)


def _quota(folder: Path) -> float | None:
    """What one group allows, by the files of version 2 or 1; -1 and "max" are no limit."""
    try:
        allowed, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    allowed_us, period_us = (read_int(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return allowed_us / period_us if allowed_us and allowed_us > 0 and period_us else None


def cgroup_folders(controller: str) -> Iterator[Path]:
    """Folders of a controller, such as "memory", from this process's group up to the root that is seen."""
    for controllers, path in _own_groups():
        if controllers and controller not in controllers:
            continue
        for mount, root in _mounts(controller, is_v2=not controllers):
            # A container may see its own group alone, mounted as the root: then the path names a folder that
            # is not there, and the mount itself is the group. ".." leads out of what can be seen.
            inside = PurePosixPath(path)
            if root != PurePosixPath("/") and root in (inside, *inside.parents):
                inside = PurePosixPath("/") / inside.relative_to(root)
            parts = [part for part in inside.parts[1:] if part != ".."]
            yield from (mount.joinpath(*parts[:length]) for length in range(len(parts), -1, -1))


def _own_groups() -> Iterator[tuple[list[str], str]]:
    """Controllers (none: version 2) and path of each group that this process is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = ["0::/", "1:memory,cpu:/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield [name for name in controllers.split(",") if name], path


def _mounts(controller: str, *, is_v2: bool) -> list[tuple[Path, PurePosixPath]]:
    """Where a controller is mounted, and which group is the root there."""
    found = []
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        lines = []
    for line in lines:
        place, _, source = line.partition(" - ")
        kind, *_, options = source.split() or [""]
        if kind == ("cgroup2" if is_v2 else "cgroup") and (is_v2 or controller in options.split(",")):
            root, mount = place.split()[3:5]
            found.append((Path(mount), PurePosixPath(root)))
    usual = Path("/sys/fs/cgroup")
    return found or [(usual if is_v2 else usual / controller, PurePosixPath("/"))]


def read_int(path: Path) -> int | None:
    """The number in a file; None where there is none, or "max"."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
