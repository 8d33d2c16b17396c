"""Ctrl-C and SIGTERM while files are written: nothing is left half done, and the same command succeeds.

The signal comes with the n-th file that is opened to be written, renamed or removed, by an audit hook.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

STOPPED = """
import os, signal, sys
number, count, *arguments = sys.argv[1:]
left = int(count)
def hook(event, args):
    global left
    is_writing = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if (is_writing and args[0] != os.devnull) or event in ("os.rename", "os.remove"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), int(number))
sys.argv = ["edgemoe", *arguments]
from edgemoe.__main__ import start
from edgemoe.cli import main
handle = main._handle_signals
main._handle_signals = lambda: (handle(), sys.addaudithook(hook))
sys.exit(start())
"""
TEXT = "Once upon a time there was a river. The river ran past a hill and a house. " * 20


def edgemoe(arguments, number=0, count=0):
    command = [sys.executable, "-c", STOPPED, str(int(number)), str(count), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def files(folder):
    """All but the file of a lock, which nobody holds any more: the next who locks takes it."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith("/lock")}


@pytest.fixture(scope="module")
def made(tiny_store, tmp_path_factory):
    """A text and a trace."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "text.txt").write_text(TEXT)
    arguments = ["trace", tiny_store, "--text", folder / "text.txt", "-o", folder / "trace"]
    assert edgemoe([*arguments, "--memory", "300MiB"]).returncode == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["export", "fit", "trace", "convert"])
def test_a_signal_while_files_are_written(made, tiny_checkpoint, tiny_store, tmp_path, command, number):
    def arguments(folder):
        return {
            "export": ["export", tiny_store, folder / "model.gguf"],
            "fit": ["fit", made / "trace", "-o", folder / "store"],
            "trace": ["trace", tiny_store, "--text", made / "text.txt", "-o", folder / "trace"],
            "convert": ["convert", tiny_checkpoint, folder / "store"],
        }[command]

    def prepared(name):
        (tmp_path / name).mkdir()
        if command == "fit":
            shutil.copytree(tiny_store, tmp_path / name / "store")
        return tmp_path / name

    whole = prepared("whole")
    assert edgemoe(arguments(whole)).returncode == 0
    for count in (1, 2, 4, 7):
        folder = prepared(str(count))
        before = files(folder)
        done = edgemoe(arguments(folder), number, count)
        assert done.returncode in (0, 128 + number), done.stderr  # 0: fewer files are written
        assert "Traceback" not in done.stderr
        if done.returncode:
            word = "interrupted" if number == signal.SIGINT else "terminated"
            assert done.stderr.splitlines()[-1] == f"edgemoe: {word}"
        if files(folder) != files(whole):
            if command != "convert":  # which goes on with what is there
                assert files(folder) == before
            assert edgemoe(arguments(folder)).returncode == 0
        assert files(folder) == files(whole)
