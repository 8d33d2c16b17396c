"""A short run of scripts/fuzz: every reader gets damaged files, and gives a result or one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from fuzz.targets import TARGETS

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


def test_damaged_files_give_a_result_or_one_line():
    # In a process of its own: the campaign forks, and a fork of one that has run PyTorch's threads may crash.
    seconds = 1.5 * len(TARGETS)
    environment = {**os.environ, "PYTHON": sys.executable}
    run = subprocess.run([SCRIPT, "--seconds", str(seconds)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith(" inputs, 0 faults\n")
