"""The compiled reader through its Python door: every way a read can end badly, and lifetimes."""

from __future__ import annotations

import errno
import gc
import os
import time
import weakref

import pytest

from edgemoe.native import DIRECT_ALIGNMENT, READ_METHODS, FileReader, aligned_empty

SECTOR = DIRECT_ALIGNMENT


@pytest.fixture(params=READ_METHODS)
def open_file(request, tmp_path):
    """Returns (path, reader) of a file with the given bytes."""
    readers = []

    def make(data, max_depth=2, **pace):
        path = tmp_path / f"{len(readers)}.bin"
        path.write_bytes(data)
        try:
            readers.append(FileReader([str(path)], max_depth, request.param, **pace))
        except OSError as error:
            if error.errno != errno.EINVAL and error.filename != "io_uring":
                raise
            pytest.skip(str(error))
        return path, readers[-1]

    yield make
    for reader in readers:
        reader.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("num_bytes", [0, 1, SECTOR - 1, SECTOR, SECTOR + 1, 2 * SECTOR + 1904])
def test_a_file_that_ends_inside_the_range_is_an_error(open_file, num_bytes):
    path, reader = open_file(bytes(num_bytes))
    with pytest.raises(
        OSError, match="unexpected end of file while reading 12288 bytes at offset 0"
    ) as caught:
        reader.wait(reader.submit(0, 0, aligned_empty(3 * SECTOR)))
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))


def test_a_file_truncated_while_open_fails_and_the_reader_goes_on(open_file):
    path, reader = open_file(os.urandom(8 * SECTOR))
    os.truncate(path, 5 * SECTOR + 100)
    out = aligned_empty(4 * SECTOR)
    with pytest.raises(OSError, match=f"at offset {4 * SECTOR}"):
        reader.wait(reader.submit(0, 4 * SECTOR, out))
    reader.wait(reader.submit(0, 0, out))
    assert out.tobytes() == path.read_bytes()[: 4 * SECTOR]


def test_a_file_removed_while_open_is_still_read(open_file):
    data = os.urandom(SECTOR)
    path, reader = open_file(data)
    path.unlink()
    out = aligned_empty(SECTOR)
    reader.wait(reader.submit(0, 0, out))
    assert out.tobytes() == data


def test_demand_overtakes_and_a_cancelled_read_never_happens(open_file):
    _, reader = open_file(bytes(32 * SECTOR * 64), max_depth=1)
    busy = aligned_empty(32 * SECTOR * 64)
    # This thread may be held back until the queue is empty; a reader without priorities fails every time.
    for _ in range(50):
        untouched = aligned_empty(SECTOR)
        untouched[:] = 7
        slow = [reader.submit(0, 0, busy, priority) for priority in (0, 9)]
        speculative = reader.submit(0, SECTOR, untouched, priority=9)
        reader.wait(reader.submit(0, 0, aligned_empty(SECTOR), priority=0))
        was_cancelled = reader.cancel(speculative)
        for ticket in (*slow, speculative):
            reader.wait(ticket)
        if was_cancelled:
            assert (untouched == 7).all()
            return
    pytest.fail("demand never overtook speculation")


def test_a_forgotten_destination_lives_until_its_read_is_waited_for(open_file):
    _, reader = open_file(bytes(4 * SECTOR))
    out = aligned_empty(4 * SECTOR)
    alive = weakref.ref(out)
    ticket = reader.submit(0, 0, out)
    del out
    gc.collect()
    assert alive() is not None
    reader.wait(ticket)
    gc.collect()
    assert alive() is None


def test_a_failed_read_frees_its_destination(open_file):
    _, reader = open_file(b"")
    out = aligned_empty(SECTOR)
    alive = weakref.ref(out)
    ticket = reader.submit(0, 0, out)
    del out
    with pytest.raises(OSError, match="unexpected end"):
        reader.wait(ticket)
    gc.collect()
    assert alive() is None


def test_dropping_a_reader_with_reads_under_way_neither_hangs_nor_crashes(open_file):
    path, first = open_file(bytes(1024 * SECTOR))
    num_open = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        reader = FileReader([str(path)], 3, first.method)
        for _ in range(8):
            reader.submit(0, 0, aligned_empty(1024 * SECTOR))
        del reader
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_misuse_is_refused(open_file):
    _, reader = open_file(bytes(SECTOR))
    with pytest.raises(ValueError, match="negative offset"):
        reader.submit(0, -SECTOR, aligned_empty(SECTOR))
    with pytest.raises(ValueError, match="no file number -1"):
        reader.submit(-1, 0, aligned_empty(SECTOR))
    with pytest.raises(ValueError, match="unknown ticket 99"):
        reader.wait(99)
    with pytest.raises(ValueError, match="no tickets"):
        reader.wait_some([])
    reader.close()
    with pytest.raises(RuntimeError, match="closed"):
        reader.submit(0, 0, aligned_empty(SECTOR))


def test_a_missing_file_names_itself(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        FileReader([str(tmp_path / "gone.bin")])
    assert caught.value.filename == str(tmp_path / "gone.bin")


def test_aligned_memory_starts_at_a_page_and_may_be_empty():
    assert aligned_empty(5).ctypes.data % 4096 == 0
    assert len(aligned_empty(0)) == 0


def test_a_paced_reader_is_no_faster_than_the_device_it_stands_for(open_file):
    _, reader = open_file(bytes(64 * SECTOR), max_depth=4, bytes_per_s=4e6, latency_s=0.005)
    began = time.perf_counter()
    tickets = [reader.submit(0, i * 16384, aligned_empty(16384)) for i in range(10)]
    for ticket in tickets:
        reader.wait(ticket)
    assert time.perf_counter() - began >= 10 * 16384 / 4e6 + 0.005


def test_reads_ahead_of_need_leave_a_place_for_those_that_are_needed(open_file):
    _, reader = open_file(bytes(64 * SECTOR), max_depth=4, bytes_per_s=4096 / 0.03)  # 30 ms a read
    reader.set_depth(2)
    ahead = [reader.submit(0, i * 4096, aligned_empty(4096), priority=1) for i in range(3)]
    needed = reader.submit(0, 12 * 4096, aligned_empty(4096), priority=0)
    reader.wait(needed)
    assert reader.wait_some(ahead[1:], block=False) == [], "a read ahead of need went first"
    assert reader.cancel(ahead[2])
    for ticket in ahead:
        reader.wait(ticket)
