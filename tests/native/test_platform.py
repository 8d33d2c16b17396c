"""What operating systems do differently."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest

import edgemoe._native as compiled
from edgemoe import system
from edgemoe.native import avoid_huge_pages, free_memory_bytes, give_back

PAGE = mmap.PAGESIZE


def test_pages_that_were_given_back_are_zeros_and_the_others_stay():
    memory = np.frombuffer(mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    avoid_huge_pages(memory)
    memory[:] = 7
    give_back(memory[PAGE : 3 * PAGE])
    assert np.all(memory[PAGE : 3 * PAGE] == 0)
    assert np.all(memory[:PAGE] == 7)
    assert np.all(memory[3 * PAGE :] == 7)
    for part in (memory[1 : PAGE + 1], memory[: PAGE - 1]):
        with pytest.raises(ValueError, match="not whole pages"):
            give_back(part)


def test_what_the_system_says_of_itself():
    assert compiled.usable_processors() == len(os.sched_getaffinity(0))
    assert 0 < free_memory_bytes() < os.sysconf("SC_PHYS_PAGES") * PAGE


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_room_is_reserved_and_content_stays(platform, tmp_path, monkeypatch):
    path = tmp_path / "sparse"
    content = b"begin" + b"\1" * (1 << 20)
    path.write_bytes(content)
    num_bytes = (3 << 20) + 5
    monkeypatch.setattr("edgemoe.system.sys.platform", platform)
    with path.open("r+b") as file:
        os.truncate(file.fileno(), num_bytes)
        system.reserve_room(file.fileno(), num_bytes)
        system.drop_from_cache(file.fileno())
    monkeypatch.undo()
    assert path.read_bytes() == content + bytes(num_bytes - len(content))
    assert path.stat().st_blocks * 512 >= num_bytes


def test_peak_memory_is_counted_in_the_systems_unit(monkeypatch):
    on_linux = system.peak_memory_bytes()
    assert 10 << 20 < on_linux < os.sysconf("SC_PHYS_PAGES") * PAGE
    monkeypatch.setattr("edgemoe.system.sys.platform", "darwin")
    assert system.peak_memory_bytes() * 1024 == pytest.approx(on_linux, rel=0.1)
