"""gpt-oss as published, experts in MXFP4: a store holds them as they are and answers as transformers does."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from safetensors.numpy import load_file, save_file

import edgemoe
from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.convert import convert, plan_as_stored
from edgemoe.errors import CheckpointError
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.source_ref import Rows
from edgemoe.store import open_store

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
USUAL = BitPlan.uniform("q4", "f32")


def in_mxfp4(values):
    """Values (E, in, out) as nibbles (E, out, in / 32, 16) and exponents, and the values of these."""
    num_experts, _, num_rows = values.shape
    blocks = values.transpose(0, 2, 1).reshape(num_experts, num_rows, -1, 32)
    exponents = np.floor(np.log2(np.abs(blocks).max(axis=3))) - 2
    scale = np.exp2(exponents)[..., None]
    codes = np.abs(blocks[..., None] / scale[..., None] - E2M1).argmin(axis=4).astype(np.uint8)
    rounded = (E2M1[codes] * scale).reshape(num_experts, num_rows, -1).transpose(0, 2, 1)
    parts = (codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + 127).astype(np.uint8), rounded)
    return tuple(np.ascontiguousarray(part) for part in parts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint in MXFP4, and one of the floats that it stands for."""
    rounded = write_checkpoint(tmp_path_factory.mktemp("f32"), "gpt-oss")
    published = write_checkpoint(tmp_path_factory.mktemp("mxfp4"), "gpt-oss")
    state = load_file(rounded / "model.safetensors")
    packed = dict(state)
    for name in [n for n in state if n.endswith(("gate_up_proj", "down_proj"))]:
        packed[name + "_blocks"], packed[name + "_scales"], state[name] = in_mxfp4(packed.pop(name))
    save_file(state, rounded / "model.safetensors", {"format": "pt"})
    save_file(packed, published / "model.safetensors", {"format": "pt"})
    config = json.loads((published / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (published / "config.json").write_text(json.dumps(config))
    return published, rounded


def test_experts_are_stored_as_they_are_and_answer_as_transformers_does(folders, tmp_path):
    published, rounded = folders
    plan = plan_as_stored(published, USUAL)
    assert plan.default == ExpertFormats.uniform("mxfp4")
    report = convert(published, tmp_path / "store", plan)
    assert report.rounding["MXFP4 → mxfp4"] == 0
    assert "quantization_config" not in open_store(tmp_path / "store").config
    model = transformers.AutoModelForCausalLM.from_pretrained(
        rounded, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        expected = model.eval()(torch.tensor(TOKENS[None].astype(np.int64))).logits[0].numpy()
    with edgemoe.load(tmp_path / "store", "4GiB", context=32, kv_format="f32") as loaded:
        logits = loaded.logits(TOKENS.tolist())
    errors = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(errors) < 0.02


@pytest.mark.parametrize("steps", [(), (Rows(1, 190, 2),)])
def test_parts_have_the_values_of_the_floats(folders, steps):
    published, rounded = (open_checkpoint(folder) for folder in folders)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    expected = rounded.read(SourceRef(name, 3)).T
    for step in steps:
        expected = expected[step.start : step.stop : step.stride]
    ref = SourceRef(name + "_blocks", 3, None, steps)
    assert np.array_equal(published.read(ref), expected)
    assert np.array_equal(published.read(ref.slice_rows(5, 40)), expected[5:40])
    info = published.tensors()[name + "_blocks"]
    assert (info.shape, info.dtype, info.exact_format) == ((6, 192, 64), "MXFP4", "mxfp4")
    assert name + "_scales" not in published.tensors()


def test_damaged_blocks_are_refused_by_name(folders, tmp_path):
    published, _ = folders
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((published / name).read_bytes())
    state = load_file(published / "model.safetensors")
    scales = "model.layers.0.mlp.experts.down_proj_scales"
    state[scales][2, 1, 0] = 255
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.experts\.down_proj_blocks: row 1 holds"):
        convert(tmp_path, tmp_path / "store", plan_as_stored(tmp_path, USUAL))
    state[scales] = state[scales][:, :-1]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has shape .*, its exponents"):
        open_checkpoint(tmp_path).tensors()
