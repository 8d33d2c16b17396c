"""What compiled code says that it takes for its work, against what the process comes to take.

In a process of its own, in which all large blocks of memory go back to the system as soon as they are free:
then its largest size in memory shows what was taken at one time.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgemoe import native

FOLDER = Path(__file__).resolve().parent
ROWS = 6000
# Stacks, small vectors, and pages that are touched in part.
NOISE_BYTES = 512 * 1024


def peak_of(work):
    """Bytes by which the process grows, at most, while ``work`` runs."""
    work()  # starts threads, and fills tables that stay
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def recurrent():
    import test_mixers as mixers

    sizes = {
        mixers.DeltaNet: {
            "num_key_heads": mixers.HK, "num_value_heads": mixers.HV,
            "key_dim": mixers.DK, "value_dim": mixers.DV,
        },
        mixers.ShortConv: {},
        mixers.Mamba2: {
            "num_heads": mixers.H, "head_dim": mixers.P, "num_groups": mixers.G, "state_dim": mixers.N
        },
        mixers.KimiDelta: {
            "num_heads": mixers.HV, "key_dim": mixers.DK, "value_dim": mixers.DV,
            "forget_rank": mixers.KimiDelta.RANK, "gate_rank": mixers.KimiDelta.RANK,
        },
    }  # fmt: skip
    for kind, options in sizes.items():
        mixer, x = kind("q4"), mixers.draw(ROWS, mixers.D)
        state = mixer.state()
        said = type(mixer.compiled).working_bytes(ROWS, width=mixers.D, **options)
        segment = mixers.segment(0, ROWS, state)
        yield kind.__name__, said, lambda mixer=mixer, x=x, s=segment: mixer.compiled.run(x, [s], True)


def attention():
    import test_attention as cases

    layer, x = cases.Layer("q4", window=8), cases.normal(ROWS, cases.D)
    cache = [np.zeros((cases.G, ROWS, cases.C), np.float16) for _ in range(2)]
    said = native.mixers.AttentionLayer.working_bytes(
        ROWS,
        ROWS,
        width=cases.D,
        num_heads=cases.H,
        num_kv_heads=cases.G,
        head_dim=cases.C,
        value_dim=cases.C,
        has_gate=False,
    )
    yield "AttentionLayer", said, lambda: layer.compiled.run(x, [(0, ROWS, *cache, 0, None, None)])


def latent():
    import test_latent as cases

    rows = ROWS // 4  # each sees all before it
    case, cache = cases.Case(24, 32, True, "q4"), np.zeros((1, rows, cases.L + cases.R), np.float16)
    x = np.ones((rows, cases.D), np.float32)
    said = native.mixers.LatentLayer.working_bytes(
        rows, rows, width=cases.D, num_heads=cases.H, query_rank=cases.Q, latent_dim=cases.L,
        plain_dim=24, rotary_dim=cases.R, value_dim=32,
    )  # fmt: skip
    yield "LatentLayer", said, lambda: case.layer.run(x, [(0, rows, cache, 0, None)])


def networks():
    def matrix(rows, cols):
        return native.Matrix(native.quantize(np.ones((rows, cols), np.float32), "q4"), "q4", rows, cols)

    width, inner = 128, 192
    up, down = matrix(inner, width), matrix(width, inner)
    x, out = np.ones((ROWS, width), np.float32), np.empty((ROWS, width), np.float32)
    for gate in (None, matrix(inner, width)):
        for rows in (None, np.arange(ROWS, dtype=np.int32)):
            said = native.expert_ffn_bytes(ROWS, width, inner, gate is not None, rows is not None)
            yield (
                f"network, gate {gate is not None}, rows {rows is not None}",
                said,
                lambda gate=gate, rows=rows: native.expert_ffn(
                    x, gate, up, down, "silu" if gate else "relu2", out, rows
                ),
            )


def experts():
    """Of a layer, all in memory and chosen by every token: as many rows for one expert as there can be."""
    width, inner, top_k = 128, 192, 2
    layout = ("q4", "q4", "q4", width, inner)
    size = -(-sum(part.num_bytes for part in native.record_parts(*layout)) // 4096) * 4096
    statistics = native.UseStatistics([size] * top_k, [0] * top_k, 0, 64.0)
    residency = native.Residency(statistics, native.make_policy("lru"), top_k * size, 0.0)
    cache = native.ExpertCache(residency)
    for expert in range(top_k):
        cache.reserve(expert)[:] = 0
        cache.admit(expert)
    places = [(0, 0)] * top_k
    loads = native.Loads(cache, native.compiled_reader(object()), places, "never", [0] * top_k)
    stream = native.ExpertStream(statistics, cache, loads, [layout] * top_k, [("silu", None, None)], False)
    x, out = np.ones((ROWS, width), np.float32), np.empty((ROWS, width), np.float32)
    ids = np.tile(np.arange(top_k, dtype=np.int32), (ROWS, 1))
    weights = np.ones((ROWS, top_k), np.float32)
    said = native.experts_working_bytes(ROWS, top_k, width, inner, True)
    yield "experts", said, lambda: stream.run(0, x, ids, weights, x, out, None, None, None)


def measured():
    native.set_num_threads(2)
    ctypes.CDLL(None).mallopt(
        -3, 64 * 1024
    )  # M_MMAP_THRESHOLD: larger blocks are mapped, and unmapped when freed
    cases = [case for kind in (recurrent, attention, latent, networks, experts) for case in kind()]
    return {name: (said, peak_of(work)) for name, said, work in cases}


@pytest.fixture(scope="module")
def found():
    code = "import json, test_working_memory as test; print(json.dumps(test.measured()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_it_takes_what_it_says(found):
    assert len(found) == 11
    for name, (said, taken) in found.items():
        # What is allocated but not written to yet when most is taken does not count as the process's.
        assert 0.9 * said <= taken <= said + NOISE_BYTES, f"{name}: says {said}, takes {taken}"
