"""A process that forks with a loaded model, or ends while a daemon thread uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import os, sys, threading, time
import edgemoe
from edgemoe.workflows.demo import demo_store

def load(path, **options):
    return edgemoe.load(path, "4GiB", cache="2MiB", context=128, **options)
"""


def run(program, timeout_s=60):
    """Run a program in a fresh interpreter; it must end by itself, and well."""
    result = subprocess.run(
        [sys.executable, "-c", HEAD + program], capture_output=True, text=True, timeout=timeout_s
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stderr == ""
    return result.stdout


FORK = """
with demo_store() as path, load(path, reader=READER) as model:
    expected = model.generate("Once upon a time", max_tokens=20).token_ids
    stream = model.stream("Once upon a time", max_tokens=20)
    next(stream)
    done = threading.Event()

    def keep_busy():
        while not done.is_set():
            model.generate("The little dog", max_tokens=4)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    for _ in range(5):
        child = os.fork()
        if not child:
            refused = 0
            for use in (
                lambda: model.generate("a"), lambda: next(stream), lambda: model.stats(),
                lambda: model.logits([1, 2]), lambda: model.perplexity([1, 2, 3]),
            ):
                try:
                    use()
                except edgemoe.EdgeMoEError as error:
                    refused += "before the process forked" in str(error)
            del stream
            model.close()
            with load(path) as own:
                same = own.generate("Once upon a time", max_tokens=20).token_ids == expected
            sys.exit(0 if refused == 5 and same else 7)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert model.generate("Once upon a time", max_tokens=20).token_ids == expected
    done.set()
    busy.join()
    rest = [t for chunk in stream for t in chunk.token_ids]
    assert [*expected[:1], *rest] == expected
print("unharmed")
"""


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered"])
def test_a_child_is_refused_in_one_line_and_the_parent_goes_on(reader):
    assert run(FORK.replace("READER", repr(reader))) == "unharmed\n"


DAEMON = """
with demo_store() as path:
    model = load(path)
    started = threading.Semaphore(0)

    def generate():
        while True:
            for _ in model.stream("Once upon a time", max_tokens=30):
                started.release()

    for _ in range(3):
        threading.Thread(target=generate, daemon=True).start()
    for _ in range(NUM_STEPS):
        started.acquire()
"""


@pytest.mark.parametrize("num_steps", [1, 10, 25])
def test_a_daemon_thread_that_generates_at_exit_does_not_abort_the_process(num_steps):
    assert run(DAEMON.replace("NUM_STEPS", str(num_steps))) == ""
