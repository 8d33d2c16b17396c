"""The writer's promises: nothing half there, nothing of anybody else's touched, no finished work lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from golden.make_store import CONFIG, FOLDER, PLAN, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemoe.checkpoint import MemoryCheckpoint
from edgemoe.convert import convert
from edgemoe.errors import ConversionError
from edgemoe.quant import BitPlan
from edgemoe.store import open_store, plan_layout
from edgemoe.store import writer as writer_module

TESTS = Path(__file__).parents[1]
# Dies in the middle of the step named by the second argument.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from edgemoe.checkpoint import MemoryCheckpoint
from edgemoe.convert import convert
from edgemoe.store import retire, writer
from golden.make_store import CONFIG, PLAN, weights
writer._SYNC_BYTES = 8192
owner, name, count = {
    "first write": (os, "pwrite", 1), "a write": (os, "pwrite", 20), "first sync": (os, "fdatasync", 1),
    "a sync": (os, "fdatasync", 5), "a journal line": (os, "fsync", 4),
    "side files": (writer, "write_file", 1), "manifest": (writer, "write_file", 2),
    "rename away": (Path, "rename", 1), "rename": (Path, "rename", 2),
    "clean-up": (Path, "unlink", 1), "removal": (writer, "remove_set_aside", 1),
    "mark": (retire, "write_file", 1), "amid removal": (Path, "unlink", 5),
}[sys.argv[2]]
real, calls = getattr(owner, name), 0
def killing(*arguments):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(owner, name, killing)
convert(MemoryCheckpoint(CONFIG, weights()), sys.argv[1], PLAN, overwrite=True)
"""
STEPS = (
    "first write", "a write", "first sync", "a sync", "a journal line", "side files", "manifest",
    "mark", "rename away", "rename", "clean-up", "removal", "amid removal",
)  # fmt: skip


def files_of(folder):
    """By name; the manifest without its own checksum, which the golden store is older than."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if manifest := files.get("edgemoe.json"):
        files["edgemoe.json"] = re.sub(rb',\n "checksum": "[0-9a-f]{16}"\n}$', b"\n}", manifest)
    return files


def source(**changes):
    return MemoryCheckpoint(CONFIG, {**weights(), **changes})


def kill_at(step, out):
    command = [sys.executable, "-c", KILLED, out, step, TESTS]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.fixture
def old_store(tmp_path):
    """A store that is about to be replaced."""
    convert(source(), tmp_path / "out", BitPlan.uniform("q2", "q8"))
    return tmp_path / "out"


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_there_is_the_old_store_or_the_new_one(old_store, step):
    kill_at(step, old_store)
    replaced = old_store.with_name("out.replaced")
    for folder in (old_store, replaced):
        if folder.exists() and not (folder == replaced and "removal" in step):
            assert list(open_store(folder).verify()) == []
    assert old_store.exists() or (replaced.exists() and step == "rename")
    report = convert(source(), old_store, PLAN, overwrite=True)
    assert files_of(old_store) == files_of(FOLDER)
    assert [path.name for path in old_store.parent.iterdir()] == ["out"]
    if step in ("side files", "manifest", "mark", "rename away", "rename"):
        assert report.num_resumed_bytes == sum(e.num_bytes for e in every_entry(old_store))


def every_entry(folder):
    manifest = open_store(folder).manifest
    return (*manifest.dense.values(), *manifest.experts.values())


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """What a conversion that died just before the end leaves behind."""
    folder = tmp_path_factory.mktemp("half")
    shutil.copytree(FOLDER, folder / "out")
    kill_at("rename away", folder / "out")
    return folder / "out.partial"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_journal_torn_anywhere_resumes(half_done, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("torn")
    partial = shutil.copytree(half_done, folder / "out.partial")
    journal = partial / "journal.jsonl"
    text = journal.read_bytes()
    cut = data.draw(st.integers(0, len(text)))
    journal.write_bytes(text[:cut] + data.draw(st.sampled_from([b"", b"\0" * 40, b"\xff{\n"])))
    convert(source(), folder / "out", PLAN)
    assert files_of(folder / "out") == files_of(FOLDER)
    shutil.rmtree(folder)


def test_a_journal_whose_files_are_gone_is_not_believed(half_done, tmp_path):
    partial = shutil.copytree(half_done, tmp_path / "out.partial")
    (partial / "experts-00000.safetensors").unlink()
    report = convert(source(), tmp_path / "out", PLAN)
    assert report.has_restarted
    assert report.num_resumed_bytes == 0
    assert files_of(tmp_path / "out") == files_of(FOLDER)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.v_proj.weight"])
def test_another_fine_tune_of_the_same_shape_starts_afresh(half_done, tmp_path, name):
    shutil.copytree(half_done, tmp_path / "out.partial")
    changed = source(**{name: weights()[name] * 2})
    assert convert(changed, tmp_path / "out", PLAN).has_restarted
    convert(changed, tmp_path / "fresh", PLAN)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_only_a_store_is_ever_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ConversionError, match="is not a store, so it is not replaced"):
        convert(source(), tmp_path, PLAN, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_stands_where_a_store_is_set_aside_is_left_alone(old_store):
    """A folder of somebody else, another's store kept under that name, and what a killed removal left."""
    thesis, kept = old_store.with_name("out.replaced"), old_store.with_name("out.replaced-1")
    thesis.mkdir()
    (thesis / "thesis.txt").write_text("irreplaceable")
    shutil.copytree(old_store, kept)
    before = files_of(kept)
    for _ in range(2):
        kill_at("amid removal", old_store)
        convert(source(), old_store, BitPlan.uniform("q2", "q8"), overwrite=True)
    assert files_of(thesis) == {"thesis.txt": b"irreplaceable"}
    assert files_of(kept) == before
    assert {path.name for path in old_store.parent.iterdir()} == {"out", thesis.name, kept.name}


def test_a_partial_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ConversionError, match="holds files that no conversion wrote"):
        convert(source(), tmp_path / "out", PLAN)
    assert files_of(tmp_path / "out.partial") == {"thesis.txt": b"irreplaceable"}


def test_a_refusal_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_DISK_MARGIN_BYTES", 1 << 60)
    with pytest.raises(ConversionError, match=r"needs .* more, .* are free"):
        convert(source(), tmp_path / "deep" / "out", PLAN)
    assert list((tmp_path / "deep").iterdir()) == []


def test_nothing_is_entered_in_the_journal_before_it_is_on_disk(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(ConversionError, match="cannot be written: Input/output error; repeat the command"):
        convert(source(), tmp_path / "out", PLAN)
    assert len((tmp_path / "out.partial" / "journal.jsonl").read_text().splitlines()) == 1
    monkeypatch.undo()
    convert(source(), tmp_path / "out", PLAN)
    assert files_of(tmp_path / "out") == files_of(FOLDER)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_any_failed_write_is_one_clear_line(tmp_path, monkeypatch, number):
    real, calls = os.pwrite, []

    def failing(descriptor, data, offset):
        calls.append(offset)
        if len(calls) == 15:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(ConversionError, match=f"^{tmp_path}: .* repeat the command, it resumes$"):
        convert(source(), tmp_path / "out", PLAN)
    assert convert(source(), tmp_path / "out", PLAN).num_resumed_bytes > 0


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:1000], offset))
    convert(source(), tmp_path / "out", PLAN)
    assert files_of(tmp_path / "out") == files_of(FOLDER)


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(ConversionError, match=r"/proc: cannot be written: .*; repeat the command"):
        convert(source(), "/proc/out", PLAN)


def test_chunks_do_not_show(tmp_path, monkeypatch):
    monkeypatch.setattr("edgemoe.convert.packing.CHUNK_FLOATS", 1)
    convert(source(), tmp_path / "out", PLAN)
    assert files_of(tmp_path / "out") == files_of(FOLDER)


def test_progress_counts_every_byte(tmp_path):
    calls = []
    convert(source(), tmp_path / "out", PLAN, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert {call[1] for call in calls} == {done[-1]}


def test_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_layout, "__defaults__", (12_000,))
    convert(source(), tmp_path / "out", PLAN)
    store = open_store(tmp_path / "out")
    assert len(store.expert_files) > 1
    assert list(store.verify()) == []
    whole = open_store(FOLDER).manifest.experts
    split = store.manifest.experts
    assert {key: entry.checksum for key, entry in split.items()} == {k: e.checksum for k, e in whole.items()}
