"""The kernel holds a process to a device's rate and memory; where it cannot, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgemoe.bench import held_to
from edgemoe.engine import device_cgroup
from edgemoe.engine.device_cgroup import CgroupUnavailable, bounded
from edgemoe.native import FileReader, aligned_empty
from edgemoe.store import Device

RATE = 20_000_000
BLOCK = 1 << 20
PATTERN = f"*/**/{device_cgroup.PREFIX}{os.getpid()}"


@pytest.fixture
def disk_file(tmp_path):
    """A file that can be read directly, from a disk that a cgroup can bound."""
    path = tmp_path / "data.bin"
    path.write_bytes(np.random.default_rng(0).bytes(16 * BLOCK))
    os.sync()
    try:
        reader = FileReader([str(path)], 2)
        reader.close()
        with bounded(path, RATE):
            pass
    except (CgroupUnavailable, OSError) as error:
        pytest.skip(str(error))
    return path


def read_s(path, num_blocks):
    """Seconds that direct reads of so many blocks take."""
    reader = FileReader([str(path)], 2)
    out = aligned_empty(num_blocks * BLOCK)
    began_s = time.perf_counter()
    tickets = [reader.submit(0, i * BLOCK, out[i * BLOCK : (i + 1) * BLOCK]) for i in range(num_blocks)]
    for ticket in tickets:
        reader.wait(ticket)
    reader.close()
    return time.perf_counter() - began_s


def test_direct_reads_keep_to_the_rate_until_it_ends(disk_file):
    before = Path("/proc/self/cgroup").read_text()
    with bounded(disk_file, RATE):
        assert Path("/proc/self/cgroup").read_text() != before
        slow_s = read_s(disk_file, 16)
    # One slice of the kernel's, a tenth of a second, may pass at once.
    assert slow_s >= 16 * BLOCK / RATE - 0.2
    assert read_s(disk_file, 16) < slow_s / 2
    assert Path("/proc/self/cgroup").read_text() == before
    assert not list(device_cgroup.ROOT.glob(PATTERN))


def test_what_a_killed_process_left_is_swept_away(disk_file):
    dies = "import os, signal, sys, pathlib, edgemoe.engine.device_cgroup as group\n"
    dies += "with group.bounded(pathlib.Path(sys.argv[1]), 1e6): os.kill(os.getpid(), signal.SIGKILL)"
    child = subprocess.Popen([sys.executable, "-c", dies, str(disk_file)])
    assert child.wait() == -signal.SIGKILL
    left = f"*/**/{device_cgroup.PREFIX}{child.pid}"
    assert list(device_cgroup.ROOT.glob(left))
    with bounded(disk_file, RATE):
        assert not list(device_cgroup.ROOT.glob(left))


def test_memory_is_bounded_too(disk_file):
    with bounded(disk_file, RATE, 3 << 30):
        (folder,) = [f for f in device_cgroup.ROOT.glob(PATTERN) if (f / "memory.stat").exists()]
        files = [folder / name for name in ("memory.max", "memory.limit_in_bytes")]
        (limit,) = [int(file.read_text()) for file in files if file.exists()]
        assert limit == 3 << 30
        assert str(os.getpid()) in (folder / "cgroup.procs").read_text().split()


def test_what_cannot_be_bounded_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(CgroupUnavailable, match="on no disk"), bounded(Path("/proc/self"), RATE):
        pass
    monkeypatch.setattr(device_cgroup, "ROOT", tmp_path / "absent")
    with held_to(Device(RATE), tmp_path, None) as how:
        assert how.startswith("paced reader alone: ")
    assert not list(tmp_path.rglob("edgemoe-device-*"))
    with held_to(None, tmp_path, None) as how:
        assert how is None


def test_version_2_takes_both_limits_in_one_group_beside_the_process(tmp_path, monkeypatch):
    (tmp_path / "cgroup.controllers").write_text("io memory")
    monkeypatch.setattr(device_cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(device_cgroup, "_own_path", lambda controller: "user/shell")
    (group,) = device_cgroup._plan("8:0", RATE, 1 << 30)
    assert group.folder.parent == tmp_path / "user"
    assert group.origin == tmp_path / "user/shell"
    assert dict(group.limits) == {"io.max": f"8:0 rbps={RATE}", "memory.max": str(1 << 30)}


def test_an_error_inside_ends_the_bounds(disk_file):
    def fail_inside():
        with bounded(disk_file, RATE):
            raise ZeroDivisionError

    before = Path("/proc/self/cgroup").read_text()
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert Path("/proc/self/cgroup").read_text() == before
