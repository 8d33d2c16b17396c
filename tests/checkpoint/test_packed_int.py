"""Packed integers as published folders have them: widths that differ, groups in any order, zeros in bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file

from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.errors import CheckpointError

N, M = 48, 64
RANDOM = np.random.default_rng(11)


def words(codes, bits):
    """Codes along the last axis in words of 32 bits, the first in the lowest bits."""
    parts = codes.astype(np.uint32).reshape(*codes.shape[:-1], -1, 32 // bits)
    return (parts << np.arange(0, 32, bits, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32).view(np.int32)


def write(folder, tensors, settings):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "quantization_config": settings}))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder)


def gptq(name, bits, size):
    """Weights (N, M) and their tensors: symmetrical, of version 1."""
    half, groups = 1 << (bits - 1), M // size
    codes = RANDOM.integers(0, 1 << bits, (M, N))
    scales = RANDOM.uniform(0.01, 0.1, (groups, N)).astype(np.float32)
    weights = ((codes - half) * np.repeat(scales, size, 0)).T
    zeros = np.full((groups, N), half - 1)
    parts = {"qweight": words(codes.T, bits).T, "qzeros": words(zeros, bits), "scales": scales}
    return weights.astype(np.float32), {f"{name}.{part}": values for part, values in parts.items()}


def packed(**more):
    """compressed-tensors' weights, zeros (N, G) and tensors, with groups of 16 in their order."""
    codes, zeros = (RANDOM.integers(-8, 8, shape).astype(np.float32) for shape in ((N, M), (N, M // 16)))
    scales = RANDOM.uniform(0.01, 0.1, (N, M // 16)).astype(np.float32)
    tensors = {"a.weight_packed": words(codes + np.float32(8), 4), "a.weight_scale": scales}
    return codes, zeros, scales, tensors | more


def settings_of(**weights):
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 16, **weights}}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"g": group}}


MIXED = [
    {"quant_method": "gptq", "bits": 4, "group_size": 32,
     "dynamic": {"-:.*lm_head": {}, "+:.*eight": {"bits": 8, "group_size": 16}}},
    {"quant_method": "auto-round", "bits": 4, "group_size": 32, "packing_format": "auto_round:auto_gptq",
     "extra_config": {"eight": {"bits": 8, "group_size": 16}, "router": {"bits": 16}}},
]  # fmt: skip


@pytest.mark.parametrize("settings", MIXED)
def test_matrices_with_settings_of_their_own(tmp_path, settings):
    (four, parts), (eight, others) = gptq("four", 4, 32), gptq("eight", 8, 16)
    source = write(tmp_path / "x", parts | others, settings | {"sym": True})
    assert np.array_equal(source.read(SourceRef("four.weight")), four)
    assert np.array_equal(source.read(SourceRef("eight.weight", rows=(5, 19))), eight[5:19])


def test_sizes_of_groups_that_cannot_be_told_apart_are_refused(tmp_path):
    """Of 64 inputs 40 or 48 leave two groups each."""
    _, parts = gptq("a", 4, 32)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 40, "dynamic": {"+:b": {"group_size": 48}}}
    with pytest.raises(CheckpointError, match=r"a\.scales may have groups of 40 or of 48 by config\.json"):
        write(tmp_path / "x", parts, settings).tensors()


def test_settings_of_a_matrix_with_other_zeros_are_refused(tmp_path):
    """AutoRound's zeros that are not half of the range may be of either version of GPTQ."""
    settings = MIXED[1] | {"sym": True, "extra_config": {"four": {"bits": 4, "sym": False}}}
    with pytest.raises(CheckpointError, match="only AWQ's and GPTQ's of symmetrical"):
        write(tmp_path / "x", gptq("four", 4, 32)[1], settings).tensors()


def test_groups_that_nobody_ordered_are_in_order(tmp_path):
    codes, _, scales, tensors = packed(**{"a.weight_g_idx": np.full(M, -1, np.int32)})
    source = write(tmp_path / "x", tensors, settings_of(actorder="group"))
    assert np.array_equal(source.read(SourceRef("a.weight")), codes * np.repeat(scales, 16, 1))


def test_groups_that_were_ordered(tmp_path):
    order = RANDOM.permutation(M) // 16
    codes, _, scales, tensors = packed(**{"a.weight_g_idx": order.astype(np.int32)})
    source = write(tmp_path / "x", tensors, settings_of(actorder="group"))
    assert np.array_equal(source.read(SourceRef("a.weight")), codes * scales[:, order])


def test_groups_that_are_not_there_are_refused(tmp_path):
    tensors = packed(**{"a.weight_g_idx": np.full(M, 4, np.int32)})[3]
    source = write(tmp_path / "x", tensors, settings_of(actorder="group"))
    with pytest.raises(CheckpointError, match=r"a\.weight_g_idx names groups that are not there"):
        source.read(SourceRef("a.weight"))


def test_zeros_with_a_byte_each(tmp_path):
    codes, zeros, scales, tensors = packed()
    tensors["a.weight_zero_point"] = zeros.astype(np.int8)
    source = write(tmp_path / "x", tensors, settings_of(symmetric=False))
    expected = (codes - np.repeat(zeros, 16, 1)) * np.repeat(scales, 16, 1)
    assert np.array_equal(source.read(SourceRef("a.weight", rows=(7, 30))), expected[7:30])


def test_zeros_of_another_shape_are_refused(tmp_path):
    tensors = packed(**{"a.weight_zero_point": np.zeros((N, 1), np.int8)})[3]
    with pytest.raises(CheckpointError, match=r"which does not fit 48 rows of 4 groups"):
        write(tmp_path / "x", tensors, settings_of(symmetric=False)).tensors()


@pytest.mark.parametrize("location", ["input", "output", "q_attn", "k_cache"])
def test_models_that_rotate_activations_are_refused(tmp_path, location):
    """Their weights alone are of another model."""
    turned = {"u": {"type": "hadamard", "apply": [{"targets": ["Linear"], "location": location}]}}
    settings = settings_of() | {"transform_config": {"config_groups": turned}}
    with pytest.raises(CheckpointError, match=f"compressed-tensors transforms {location} while the model"):
        write(tmp_path / "x", packed()[3], settings).tensors()


@pytest.mark.parametrize("location", ["weight_input", "weight_output"])
def test_rotations_that_are_in_the_weights_change_nothing(tmp_path, location):
    turned = {"r1": {"type": "hadamard", "apply": [{"targets": ["Linear"], "location": location}]}}
    settings = settings_of() | {"transform_config": {"config_groups": turned}}
    codes, _, scales, tensors = packed()
    source = write(tmp_path / "x", tensors, settings)
    assert np.array_equal(source.read(SourceRef("a.weight")), codes * np.repeat(scales, 16, 1))
