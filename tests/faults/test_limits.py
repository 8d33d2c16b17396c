"""Limits that containers set: few processes and threads, little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from memory_cgroup import CgroupUnavailable, run_capped

from edgemoe.cli.main import main
from edgemoe.units import MIB
from edgemoe.workflows import tracing

COMMAND = [sys.executable, "-m", "edgemoe"]
TEXT = "Once upon a time there was a river. The river ran past a hill and a house. " * 60


@contextmanager
def few_processes(count):
    """What begins a command in a cgroup that allows so many threads."""
    root = Path("/sys/fs/cgroup")
    parent = root if (root / "cgroup.controllers").is_file() else root / "pids"
    folder = parent / f"edgemoe-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "pids.max").write_text(str(count))
    except OSError as error:
        pytest.skip(f"no cgroup of processes can be made: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > "{folder}/cgroup.procs" && exec "$@"', "sh"]
    finally:
        folder.rmdir()


@pytest.fixture(scope="module")
def trace(tiny_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    (folder / "text.txt").write_text(TEXT)
    arguments = ["trace", tiny_store, "--text", folder / "text.txt", "-o", folder / "trace"]
    subprocess.run([*COMMAND, *map(str, arguments), "--memory", "300MiB"], check=True, capture_output=True)
    return folder / "trace"


@pytest.mark.parametrize("count", [1, 2])
def test_commands_that_solve_systems_run_where_no_thread_may_be_made(store_copy, trace, count):
    """NumPy's library interrupts the process, and the kernel cancels reads that it needs a thread for."""
    with few_processes(count) as begin:
        for arguments in (["fit", trace, "-o", store_copy], ["simulate", trace]):
            done = subprocess.run(
                [*begin, *COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            assert "OpenBLAS" not in done.stderr


@pytest.mark.parametrize("command", ["eval", "trace", "profile", "report", "fit", "doctor", "export"])
def test_a_command_stays_within_a_cgroup_of_its_budget(tiny_checkpoint, store_copy, trace, tmp_path, command):
    text, profile = trace.with_name("text.txt"), trace.with_name("profile")
    budget = ["--memory", "150MiB"]
    windows = ["--max-tokens", "600", "--window", "64"]
    measuring = ["profile", tiny_checkpoint, "--text", text, *windows, *budget, "-o"]
    arguments = {
        "eval": [store_copy, "--text", text, *budget],
        "trace": [store_copy, "--text", text, "-o", tmp_path / "trace", *budget],
        "profile": [*measuring[1:], tmp_path / "profile"],
        "report": [profile, "-o", tmp_path / "report"],
        "fit": [trace, "-o", store_copy],
        "doctor": [store_copy],
        "export": [store_copy, tmp_path / "model.gguf"],
    }[command]
    if command == "report":
        pytest.importorskip("matplotlib")
        subprocess.run([*COMMAND, *map(str, measuring), profile], check=True, capture_output=True)
    try:
        done = run_capped([*COMMAND, command, *map(str, arguments)], 150 * MIB)
    except CgroupUnavailable as error:
        pytest.skip(str(error))
    assert (done.exit_code, done.num_oom_kills) == (0, 0), done.stderr


def test_fitting_is_refused_where_it_would_be_killed(store_copy, trace, monkeypatch, capsys):
    before = sorted(path.name for path in store_copy.iterdir())
    monkeypatch.setattr(tracing, "available_memory_bytes", lambda: (8 * MIB, "left below the cgroup's limit"))
    assert main(["fit", str(trace), "-o", str(store_copy)]) == 2
    said = capsys.readouterr().err
    assert "8.00 MiB is left below the cgroup's limit; trace fewer tokens" in said
    assert sorted(path.name for path in store_copy.iterdir()) == before
