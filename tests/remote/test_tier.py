"""The local tier: bounded, shared, and never believed without a checksum."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from edgemoe.errors import StoreError
from edgemoe.native import aligned_empty
from edgemoe.store import checksum
from edgemoe.store.remote.tier import Record, Tier

SIZE, COUNT, FIRST = 8192, 12, 4096  # bytes of a record, records, where the first lies
FILE_BYTES = FIRST + COUNT * SIZE + 100  # its end is no whole block


def contents(number):
    return np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)


RECORDS = [Record(0, FIRST + i * SIZE, SIZE, checksum(contents(i))) for i in range(COUNT)]


@pytest.fixture
def opened(tmp_path):
    """Opens the tier of a folder, as a process would; all are closed in the end."""
    tiers = []

    def open_tier(num_records=COUNT):
        tiers.append(Tier(tmp_path / "tier", {"experts.bin": FILE_BYTES}, RECORDS, num_records * SIZE))
        return tiers[-1]

    yield open_tier
    for tier in tiers:
        tier.close()


def offer(tier, *numbers):
    for number in numbers:
        tier.offer(0, RECORDS[number].offset, contents(number))
        tier.flush()


def held(tier):
    return [i for i, r in enumerate(RECORDS) if tier.find(r.file, r.offset, r.num_bytes) is not None]


def read(tier, number):
    out, reader = aligned_empty(SIZE), tier.open_reader()
    reader.wait(reader.submit(0, RECORDS[number].offset, out))
    reader.close()
    return out


def num_allocated(path):
    return (path / "tier" / "experts.bin").stat().st_blocks * 512


def test_what_was_offered_is_there_after_a_restart(opened, tmp_path):
    tier = opened()
    offer(tier, 3, 0)
    assert held(tier) == [0, 3]
    tier.close()
    tier = opened()
    assert held(tier) == [0, 3]
    assert np.array_equal(read(tier, 3), contents(3))
    assert num_allocated(tmp_path) == 2 * SIZE


def test_bytes_that_are_not_the_record_are_not_kept(opened):
    tier = opened()
    tier.offer(0, RECORDS[1].offset, contents(2))
    tier.offer(0, RECORDS[1].offset + 4096, contents(1))
    tier.flush()
    assert held(tier) == []


def test_its_bound_holds_and_what_is_used_stays(opened, tmp_path):
    tier = opened(3)
    offer(tier, 0, 1, 2)
    for number in (0, 2, 2):
        tier.use(number)
    offer(tier, 3)
    assert held(tier) == [0, 2, 3]
    assert tier.held_bytes == num_allocated(tmp_path) == 3 * SIZE


def test_what_was_used_much_long_ago_leaves_in_the_end(opened):
    tier = opened(2)
    offer(tier, 0)
    for _ in range(3):
        tier.use(0)
    for number in range(1, COUNT):
        offer(tier, number)
    assert 0 not in held(tier)


def test_a_smaller_bound_is_kept_from_the_start(opened, tmp_path):
    tier = opened()
    offer(tier, *range(6))
    tier.close()
    tier = opened(2)
    assert tier.held_bytes == num_allocated(tmp_path) == 2 * SIZE


def test_a_record_larger_than_the_tier_is_not_kept(opened):
    tier = opened(0.5)
    offer(tier, 0)
    assert held(tier) == []


@pytest.mark.parametrize("index", [b"", b"garbage", None])
def test_a_lost_index_gives_back_what_it_knew(opened, tmp_path, index):
    tier = opened()
    offer(tier, *range(COUNT))
    tier.close()
    path = tmp_path / "tier" / "index"
    if index is None:
        path.unlink()
    else:
        path.write_bytes(index)
    tier = opened()
    assert held(tier) == []
    assert num_allocated(tmp_path) == 0
    offer(tier, 5)
    assert np.array_equal(read(tier, 5), contents(5))


def test_a_crash_while_writing_leaves_nothing(tmp_path, opened):
    code = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from remote.test_tier import COUNT, FILE_BYTES, RECORDS, SIZE, contents
from edgemoe.store.remote import tier
written = tier._write
def half(descriptor, offset, data):
    written(descriptor, offset, data[:4096])
    os._exit(9)
one = tier.Tier(Path(sys.argv[1]), {"experts.bin": FILE_BYTES}, RECORDS, COUNT * SIZE)
one.offer(0, RECORDS[0].offset, contents(0))
one.flush()
tier._write = half
one.offer(0, RECORDS[7].offset, contents(7))
one.flush()
"""
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "tier"), tests], check=False)
    assert ended.returncode == 9
    assert num_allocated(tmp_path) == SIZE + 4096
    tier = opened()
    assert held(tier) == [0]
    assert num_allocated(tmp_path) == tier.held_bytes == SIZE


def test_two_that_share_a_folder_see_what_the_other_keeps_and_one_bound(opened, tmp_path):
    one, two = opened(4), opened(4)
    offer(one, 0, 1, 2)
    assert held(two) == [0, 1, 2]
    assert np.array_equal(read(two, 1), contents(1))
    for number in (3, 4, 5):
        two.offer(0, RECORDS[number].offset, contents(number))
        one.offer(0, RECORDS[number].offset, contents(number))
    one.flush()
    two.flush()
    assert held(one) == held(two)
    assert one.held_bytes == two.held_bytes == num_allocated(tmp_path) == 4 * SIZE
    for number in held(one):
        assert np.array_equal(read(one, number), contents(number))


def test_an_index_that_has_no_room_is_one_error(opened, monkeypatch):
    """It is written through a map: on a full disk that would kill the process."""

    def is_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        opened()


def test_a_disk_that_is_full_ends_keeping_and_nothing_else(opened, monkeypatch):
    tier = opened()
    offer(tier, 0)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgemoe.store.remote.tier._write", refuse)
    offer(tier, 1)
    monkeypatch.undo()
    offer(tier, 2)
    assert held(tier) == [0]
    assert tier.held_bytes == SIZE
