"""Files that other programs change while they are read: a line that says so, and nothing half written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from helpers.tiny_models import write_checkpoint

from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.errors import CheckpointError
from edgemoe.quant import BitPlan

FILE = "model.safetensors"
PLAN = BitPlan.uniform("q8", "q8")


def written(path):
    """The file written anew, as another training would: of the same size and the same tensors."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def replaced(path):
    other = path.with_name("other")
    shutil.copy(path, other)
    written(other)
    other.replace(path)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


CHANGES = {"written": written, "replaced": replaced, "cut": cut, "removed": lambda path: path.unlink()}


def later(path):
    """A time of change that differs, however coarse the clock of the file system."""
    if path.exists():
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_that_changes_before_it_is_read(tmp_path, name):
    folder = write_checkpoint(tmp_path / "hf", "qwen3")
    source = open_checkpoint(folder)
    CHANGES[name](folder / FILE)
    later(folder / FILE)
    said = "No such file" if name == "removed" else "has changed meanwhile"
    with pytest.raises(CheckpointError, match=rf"{FILE}: tensor .* cannot be read: .*{said}"):
        convert(source, tmp_path / "store", PLAN)
    source.close()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["written", "cut"])
def test_a_checkpoint_that_changes_while_it_is_read(tmp_path, name):
    folder = write_checkpoint(tmp_path / "hf", "qwen3")
    num_calls = 0

    def change(done, total):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 3:
            CHANGES[name](folder / FILE)
            later(folder / FILE)

    with pytest.raises(CheckpointError, match="has changed meanwhile"):
        convert(folder, tmp_path / "store", PLAN, progress=change)
    assert not (tmp_path / "store").exists()


TRUNCATED = """
import os, sys
from edgemoe.calib.trace import read_trace
from pathlib import Path
trace = read_trace(Path(sys.argv[1]))
os.truncate(Path(sys.argv[1]) / "states.npy", 128)
print(float(trace.states[-1].astype("float32").sum()))
"""


def test_a_trace_that_becomes_shorter_while_it_is_read(tiny_store, tmp_path):
    (tmp_path / "text.txt").write_text("Once upon a time there was a river. " * 60)
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "edgemoe", "trace", tiny_store, "--text", tmp_path / "text.txt"]
    subprocess.run([*command, "-o", trace, "--memory", "300MiB"], check=True, capture_output=True)
    assert (trace / "states.npy").stat().st_size > 2 * os.sysconf("SC_PAGESIZE")
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED, trace], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgemoe: a file of a trace has become shorter")
    assert done.stderr.count("\n") == 1


def test_templates_that_are_no_text_are_named(tmp_path):
    folder = write_checkpoint(tmp_path / "hf", "qwen3")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(CheckpointError, match=r"tool_use\.jinja: is not UTF-8 \(byte 3\)"):
        open_checkpoint(folder).files()


def test_side_files_beyond_measure_are_not_read(tmp_path):
    folder = write_checkpoint(tmp_path / "hf", "qwen3")
    (folder / "tokenizer.json").write_text("{}")
    os.truncate(folder / "tokenizer.json", 1 << 40)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: has 1099511627776 bytes, too many"):
        open_checkpoint(folder).files()
    assert json.loads((folder / "config.json").read_text())
