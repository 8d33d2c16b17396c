"""EDGEMOE_ISA with a name that cannot be run is refused in one line, whatever the command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", [["demo"], ["convert", "somewhere", "out"], ["doctor"]])
def test_an_instruction_set_that_is_not_there_is_one_line(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "edgemoe", *command],
        env={**os.environ, "EDGEMOE_ISA": "sse9\x1b[31m"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgemoe: EDGEMOE_ISA: instruction set 'sse9")
    assert last.isprintable()
