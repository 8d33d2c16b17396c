"""One contract for every reader, and what only one of them promises."""

from __future__ import annotations

import errno
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from helpers.remote_server import Remote, serve

from edgemoe.errors import RequestError, StoreError
from edgemoe.native import FileReader, aligned_empty
from edgemoe.store import MemoryReader, checksum, expert_reader, open_reader

BLOCK = 4096
NUM_BLOCKS = 24


@pytest.fixture
def contents():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, NUM_BLOCKS * BLOCK, dtype=np.uint8) for _ in range(2)]


@contextmanager
def far_reader(contents, folder, monkeypatch, has_tier):
    """A reader of files behind a server, and with a tier that has every third block."""
    pytest.importorskip("obstore")
    from edgemoe.store.remote import files
    from edgemoe.store.remote.address import parse_address
    from edgemoe.store.remote.reader import RemoteReader, TieredReader
    from edgemoe.store.remote.tier import Record, Tier

    monkeypatch.setattr(files, "FIRST_PAUSE_S", 1e-4)
    for number, data in enumerate(contents):
        (folder / f"{number}.bin").write_bytes(data.tobytes())
    with serve(Remote({"far": folder}, latency_s=1e-3)) as address:
        remote = files.RemoteFiles(parse_address(f"{address}/far"))
        names = [f"{number}.bin" for number in range(len(contents))]
        if not has_tier:
            yield RemoteReader(remote, names, 4)
            return
        records = [
            Record(file, i * BLOCK, BLOCK, checksum(data[i * BLOCK : (i + 1) * BLOCK]))
            for file, data in enumerate(contents)
            for i in range(1, NUM_BLOCKS)
        ]
        tier = Tier(folder / "tier", dict.fromkeys(names, NUM_BLOCKS * BLOCK), records, 1 << 30)
        for record in records[::3]:
            tier.offer(record.file, record.offset, contents[record.file][record.offset :][:BLOCK])
            tier.flush()
        yield TieredReader(RemoteReader(remote, names, 4, tier), tier)


def open_or_skip(paths, kind):
    """A reader of a kind; containers and emulators may have no io_uring."""
    try:
        return open_reader(paths, kind)
    except StoreError as error:
        if "io_uring" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(
    params=["ring", "direct", "buffered", "memory", "memory-slow-shuffled", "remote", "remote-tier"]
)
def reader(request, contents, tmp_path, monkeypatch):
    if request.param.startswith("remote"):
        with far_reader(contents, tmp_path, monkeypatch, "tier" in request.param) as made:
            yield made
            made.close()
        return
    if request.param.startswith("memory"):
        slow = request.param != "memory"
        made = MemoryReader(contents, latency_s=0.001 if slow else 0, seed=1 if slow else None)
    else:
        paths = []
        for number, data in enumerate(contents):
            paths.append(tmp_path / f"{number}.bin")
            paths[-1].write_bytes(data.tobytes())
        made = open_or_skip(paths, request.param)
    yield made
    made.close()


def test_reads_give_the_bytes_of_their_range(reader, contents):
    expected, tickets = [], {}
    for i in range(NUM_BLOCKS - 1):
        out = aligned_empty(2 * BLOCK)
        tickets[reader.submit(i % 2, i * BLOCK, out, priority=i % 3)] = out
        expected.append(contents[i % 2][i * BLOCK : (i + 2) * BLOCK])
    for (ticket, out), want in zip(tickets.items(), expected, strict=True):
        reader.wait(ticket)
        assert np.array_equal(out, want)


def test_wait_some_need_not_block(reader):
    out = aligned_empty(BLOCK)
    reader.set_depth(2)
    ticket = reader.submit(0, 0, out)
    while not (ended := reader.wait_some([ticket], block=False)):
        time.sleep(0.0005)
    assert ended == [ticket]
    reader.wait(ticket)


def test_wait_some_returns_each_ticket_once_it_has_ended(reader, contents):
    outs = {reader.submit(0, i * BLOCK, out): (i, out) for i in range(8) for out in [aligned_empty(BLOCK)]}
    while outs:
        ended = reader.wait_some(list(outs))
        assert ended
        for ticket in ended:
            reader.wait(ticket)
            i, out = outs.pop(ticket)
            assert np.array_equal(out, contents[0][i * BLOCK : (i + 1) * BLOCK])


def test_reading_past_the_end_is_an_error_and_the_reader_goes_on(reader, contents):
    out = aligned_empty(2 * BLOCK)
    ticket = reader.submit(0, (NUM_BLOCKS - 1) * BLOCK, out)
    with pytest.raises(OSError, match=r"Input/output error|unexpected end of file") as caught:
        reader.wait(ticket)
    assert caught.value.errno == errno.EIO
    reader.wait(reader.submit(0, 0, out))
    assert np.array_equal(out, contents[0][: 2 * BLOCK])


def test_closing_with_reads_under_way_ends_them_all(reader):
    tickets = [reader.submit(0, i * BLOCK, aligned_empty(BLOCK)) for i in range(NUM_BLOCKS)]
    reader.close()
    reader.close()
    assert sorted(reader.wait_some(tickets, block=False)) == tickets
    for ticket in tickets:
        reader.wait(ticket)


def test_an_abandoned_read_is_collected_and_its_destination_free(reader, contents):
    tickets = [reader.submit(0, i * BLOCK, aligned_empty(BLOCK)) for i in range(NUM_BLOCKS)]
    reader.begin()
    for ticket in tickets:
        reader.abandon(ticket)
        with pytest.raises(ValueError, match=f"unknown ticket {ticket}"):
            reader.wait(ticket)
    out = aligned_empty(BLOCK)
    reader.wait(reader.submit(1, BLOCK, out))
    assert np.array_equal(out, contents[1][BLOCK : 2 * BLOCK])


def test_misuse_is_refused_alike_by_every_reader(reader):
    out = aligned_empty(BLOCK)
    for file in (-1, 2):
        with pytest.raises(ValueError, match=f"no file number {file}"):
            reader.submit(file, 0, out)
    with pytest.raises(ValueError, match="negative offset"):
        reader.submit(0, -BLOCK, out)
    ticket = reader.submit(0, 0, out)
    reader.wait(ticket)
    for call in (lambda: reader.wait(ticket), lambda: reader.wait_some([ticket])):
        with pytest.raises(ValueError, match=f"unknown ticket {ticket}"):
            call()
    with pytest.raises(ValueError, match="no tickets"):
        reader.wait_some([])
    assert not reader.cancel(ticket)
    reader.close()
    with pytest.raises(RuntimeError, match="closed"):
        reader.submit(0, 0, out)


def test_a_cancelled_read_never_happens(contents):
    gate = threading.Event()

    def hold_first(file, offset):
        if offset == 0:
            gate.wait(5)
        return 0

    reader = MemoryReader(contents, fault=hold_first)
    first = reader.submit(0, 0, np.empty(BLOCK, np.uint8))
    while reader._queue:  # until the first is being read
        time.sleep(0.001)
    untouched = np.full(BLOCK, 7, np.uint8)
    second = reader.submit(0, BLOCK, untouched)
    assert reader.cancel(second)
    assert not reader.cancel(first)
    gate.set()
    reader.wait(first)
    reader.wait(second)
    assert (untouched == 7).all()
    reader.close()


def test_demand_overtakes_speculation(contents):
    gate, order = threading.Event(), []

    def record(file, offset):
        gate.wait(5)
        order.append(offset // BLOCK)
        return 0

    reader = MemoryReader(contents, fault=record)
    tickets = [reader.submit(0, i * BLOCK, np.empty(BLOCK, np.uint8), priority=9) for i in range(4)]
    while len(reader._queue) > 3:
        time.sleep(0.001)
    tickets.append(reader.submit(0, 5 * BLOCK, np.empty(BLOCK, np.uint8), priority=0))
    gate.set()
    for ticket in tickets:
        reader.wait(ticket)
    reader.close()
    assert order == [0, 5, 1, 2, 3]


def test_a_fault_is_raised_with_its_errno(contents):
    reader = MemoryReader(contents, fault=lambda file, offset: errno.EIO if offset == BLOCK else 0)
    ticket = reader.submit(0, BLOCK, np.empty(BLOCK, np.uint8))
    with pytest.raises(OSError, match="Input/output error"):
        reader.wait(ticket)
    reader.close()


@pytest.mark.parametrize("kind", ["ring", "direct"])
def test_a_direct_read_names_file_and_offset(tmp_path, kind):
    path = tmp_path / "short.bin"
    path.write_bytes(bytes(BLOCK))
    reader = open_or_skip([path], kind)
    ticket = reader.submit(0, BLOCK, aligned_empty(BLOCK))
    with pytest.raises(
        OSError, match=f"unexpected end of file while reading 4096 bytes at offset {BLOCK}"
    ) as e:
        reader.wait(ticket)
    assert e.value.filename == str(path)
    with pytest.raises(ValueError, match="multiples of 4096"):
        reader.submit(0, 1, aligned_empty(BLOCK))
    with pytest.raises(ValueError, match="no file number 1"):
        reader.submit(1, 0, aligned_empty(BLOCK))
    reader.close()


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ({"ring": OSError(errno.EPERM, "Operation not permitted", "io_uring")}, "direct"),
        ({kind: OSError(errno.EINVAL, "Invalid argument", "f") for kind in ("ring", "direct")}, "buffered"),
    ],
)
def test_what_kernel_or_file_system_refuse_is_done_another_way(tmp_path, monkeypatch, refused, left):
    def open_files(paths, max_depth, method, *pace):
        if method in refused:
            raise refused[method]
        return FileReader(paths, max_depth, method, *pace)

    monkeypatch.setattr(expert_reader, "FileReader", open_files)
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(BLOCK))
    assert open_reader([path]).method == left
    with pytest.raises(StoreError, match=r"cannot be opened: (Operation not permitted|Invalid argument)"):
        open_reader([path], "ring")


def test_missing_file_and_unknown_kind_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.bin: cannot be opened: No such file"):
        open_reader([tmp_path / "gone.bin"])
    with pytest.raises(RequestError, match="choose one of auto, ring, direct, buffered"):
        open_reader([], "telepathy")
