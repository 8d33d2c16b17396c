"""A store of format version 1, made once and kept: every later version reads it and gets its numbers."""

from __future__ import annotations

import numpy as np
import pytest
from golden.make_store import FOLDER, PLAN, weights

import edgemoe
from edgemoe import native
from edgemoe.engine.machine import resident_bytes
from edgemoe.store import expert_matrices, open_store

# Root-mean-square error relative to the weights', measured when the store was made; half as much again.
WORST = {"q2": 0.33, "q3": 0.155, "q4": 0.07, "q6": 0.02, "q8": 0.005, "bf16": 0.002, "f16": 3e-4, "f32": 0.0}


def relative_error(actual, expected):
    return np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2))


def test_it_opens_and_verifies():
    store = open_store(FOLDER)
    assert list(store.verify()) == []
    assert store.manifest.plan == {"kind": "golden"}


@pytest.mark.parametrize("expert", range(4))
def test_experts_are_the_weights_they_were_made_of(expert):
    store = open_store(FOLDER)
    entry = store.manifest.experts[0, expert]
    assert entry.formats == PLAN.formats_of(0, expert)
    with (FOLDER / entry.file).open("rb") as file:
        file.seek(entry.offset)
        record = np.frombuffer(file.read(entry.num_bytes), np.uint8)
    for name, matrix in zip(
        ("gate", "up", "down"), expert_matrices(record, entry.formats, 64, 32), strict=True
    ):
        actual = native.dequantize(matrix.packed, matrix.format, matrix.num_rows, matrix.num_cols)
        expected = weights()[f"model.layers.0.mlp.experts.{expert}.{name}_proj.weight"]
        assert relative_error(actual, expected) <= WORST[matrix.format]


def test_dense_tensors_are_the_weights_they_were_made_of():
    store = open_store(FOLDER)
    data = store.read_dense()
    embed = native.dequantize(data["embed.weight"][: native.packed_num_bytes("q8", 40, 64)], "q8", 40, 64)
    assert relative_error(embed, weights()["model.embed_tokens.weight"]) <= WORST["q8"]
    norm = data["norm.weight"].view(np.float32)
    assert np.array_equal(norm, weights()["model.norm.weight"])


def test_it_runs():
    with edgemoe.load(FOLDER, resident_bytes() + (512 << 20), context=16) as model:
        assert np.isfinite(model.logits([1, 2, 3])).all()
