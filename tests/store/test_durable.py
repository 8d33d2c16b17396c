"""Files that replace others, and locks where the storage has none."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile

import pytest

from edgemoe.errors import ConversionError
from edgemoe.store.durable import lock_file, lock_folder, replace_file
from edgemoe.store.remote.tier_index import TierIndex


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def storage_without_locks(request, tmp_path, monkeypatch):
    """A folder as Lustre without "flock" has them, beside a temporary folder of the machine."""
    storage, local = tmp_path / "storage", tmp_path / "local"
    storage.mkdir()
    local.mkdir()
    flock = fcntl.flock

    def refuse(descriptor, how):
        if os.path.realpath(f"/proc/self/fd/{descriptor}").startswith(str(storage)):
            raise OSError(request.param, os.strerror(request.param))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(local))
    return storage


def test_without_locks_the_processes_of_a_machine_are_kept_apart(storage_without_locks):
    folder = storage_without_locks / "partial"
    held = lock_folder(folder)
    with pytest.raises(ConversionError, match="another process is writing it"):
        lock_folder(folder)
    other = lock_file(storage_without_locks / "file")
    os.close(held)
    os.close(lock_folder(folder))
    os.close(other)


def test_a_tier_on_storage_without_locks_is_shared(storage_without_locks):
    path = storage_without_locks / "index"
    tier, other = TierIndex(path, [10, 20]), TierIndex(path, [10, 20])
    with tier.locked():
        tier.take(1)
        tier.set_whole(1)
    with other.locked():
        assert (other.held_bytes, other.is_whole(1)) == (20, True)
    tier.close()
    other.close()


def test_no_descriptor_is_left_by_a_lock(tmp_path):
    def count():
        return len(os.listdir("/proc/self/fd"))

    before = count()
    held = lock_folder(tmp_path / "folder")
    assert count() == before + 1
    # A process of its own: it is refused, and so is nobody once the lock is closed.
    command = "import sys; from pathlib import Path; from edgemoe.store.durable import lock_folder;"
    command += "lock_folder(Path(sys.argv[1]))"
    run = [sys.executable, "-c", command, str(tmp_path / "folder")]
    assert b"another process" in subprocess.run(run, capture_output=True, check=False).stderr
    with pytest.raises(ConversionError):
        lock_folder(tmp_path / "folder")
    os.close(held)
    assert count() == before
    subprocess.run(run, check=True)


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, f"a.{'s' * 250}"])
def test_a_file_of_the_longest_name_is_replaced(tmp_path, name):
    replace_file(tmp_path / name, b"old")
    replace_file(tmp_path / name, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"new")]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, is_there):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "target", tmp_path / "link"
    link.symlink_to(target)
    if is_there:
        target.write_bytes(b"old")
    replace_file(link, b"new")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"new")
    assert [path.name for path in target.parent.iterdir()] == ["target"]
