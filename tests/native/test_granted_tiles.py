"""Which instruction sets there are, where the system grants less than the processor has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgemoe import native

# A thread whose stack for signals is too small for the state of tiles: Linux refuses tiles to its process.
WITH_SMALL_SIGNAL_STACK = """
import ctypes

class Stack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.addressof(memory), 0, len(memory))
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
from edgemoe import native
print(native.active_isa(), *native.available_isas())
"""


def has_tiles() -> bool:
    """Whether the processor has tiles: kernels of AMX may run without (EDGEMOE_AMX_BY_AVX512)."""
    return "amx" in native.available_isas() and "amx_tile" in Path("/proc/cpuinfo").read_text()


@pytest.mark.skipif(not has_tiles(), reason="no AMX here")
def test_a_process_that_is_refused_tiles_takes_what_comes_next():
    done = subprocess.run(
        [sys.executable, "-c", WITH_SMALL_SIGNAL_STACK], capture_output=True, text=True, check=True
    )
    active, *available = done.stdout.split()
    assert "amx" not in available
    assert active == available[-1]
