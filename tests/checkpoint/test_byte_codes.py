"""Matrices with a byte for each number, FP8, MXFP8 and integers, with scales of every form."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from helpers.tiny_models import write_checkpoint
from safetensors.torch import load_file, save_file

from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.convert import convert
from edgemoe.errors import CheckpointError
from edgemoe.quant import BitPlan

N, M = 96, 128
DRAWN = torch.Generator().manual_seed(3)
FP8 = torch.randn(N, M, generator=DRAWN).mul(20).to(torch.float8_e4m3fn)
INTEGERS = torch.randint(-128, 128, (N, M), generator=DRAWN, dtype=torch.int8)
# Exponents of powers of two from 2^-9 to 2^4.
EXPONENTS = torch.randint(118, 132, (N, M // 32), generator=DRAWN, dtype=torch.uint8)


def spread(scales, rows, cols):
    """A scale for every number: each stands for so many rows and columns."""
    wide = np.repeat(np.repeat(np.asarray(scales, np.float32), rows, 0), cols, 1)
    return wide[:N, :M]


def powers(exponents):
    return np.float32(2) ** (exponents.numpy().astype(np.float32) - 127)


def compressed(format, **weights):
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, **weights}}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}}


def floats(*shape):
    return torch.rand(shape, generator=DRAWN) + 0.5


GROUPS, BLOCKS, ROWS, COLUMNS = floats(N, M // 16), floats(2, 3), floats(N, 1), floats(1, M)
BIG = torch.tensor([[120]], dtype=torch.uint8)
MX = {"quant_method": "mxfp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}
FORMS = {
    "MXFP8": (FP8, "weight_scale_inv", EXPONENTS, MX, spread(powers(EXPONENTS), 1, 32)),
    "MXFP8 that calls itself FP8": (
        *(FP8, "weight_scale_inv", EXPONENTS, MX | {"quant_method": "fp8"}),
        spread(powers(EXPONENTS), 1, 32),
    ),
    "MXFP8 of modelopt": (
        *(FP8, "weight_scale", EXPONENTS, {"quant_method": "modelopt", "quant_algo": "MXFP8"}),
        spread(powers(EXPONENTS), 1, 32),
    ),
    "MXFP8 of compressed-tensors": (
        *(FP8, "weight_scale", EXPONENTS, compressed("mxfp8-quantized", type="float", group_size=32)),
        spread(powers(EXPONENTS), 1, 32),
    ),
    "blocks with powers of two": (
        *(FP8, "weight_scale_inv", BIG, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
        spread(powers(BIG), N, M),
    ),
    "FP8 in groups": (
        *(FP8, "weight_scale", GROUPS, compressed("float-quantized", type="float", group_size=16)),
        spread(GROUPS, 1, 16),
    ),
    "FP8 in other blocks": (
        *(FP8, "weight_scale", BLOCKS, compressed("float-quantized", type="float", block_structure=[64, 48])),
        spread(BLOCKS, 64, 48),
    ),
    "FP8 by columns": (
        *(FP8, "weight_scale", COLUMNS, compressed("float-quantized", type="float", strategy="channel")),
        spread(COLUMNS, N, 1),
    ),
    "integers by rows": (
        *(INTEGERS, "weight_scale", ROWS, compressed("int-quantized", type="int", strategy="channel")),
        spread(ROWS, 1, M),
    ),
    "integers with one scale": (
        *(INTEGERS, "weight_scale", floats(1), compressed("int-quantized", type="int", strategy="tensor")),
        None,
    ),
    "integers of 4 bits in groups": (
        *(INTEGERS.clamp(-8, 7), "weight_scale", GROUPS),
        *(compressed("int-quantized", type="int", num_bits=4, group_size=16), spread(GROUPS, 1, 16)),
    ),
}


def write(folder, codes, name, scales, settings):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "quantization_config": settings}))
    save_file({"a.weight": codes.contiguous(), f"a.{name}": scales}, folder / "model.safetensors")
    return open_checkpoint(folder)


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_codes_times_their_scales(tmp_path, form):
    codes, name, scales, settings, wide = FORMS[form]
    expected = codes.float().numpy() * (scales.numpy() if wide is None else wide)
    source = write(tmp_path / "x", codes, name, scales, settings)
    assert source.tensors().keys() == {"a.weight"}
    np.testing.assert_array_equal(source.read(SourceRef("a.weight")), expected)
    np.testing.assert_array_equal(source.read(SourceRef("a.weight", rows=(37, 71))), expected[37:71])


def test_integers_are_no_scales(tmp_path):
    scales = torch.ones(1, 1, dtype=torch.int32)
    source = write(tmp_path / "x", FP8, "weight_scale_inv", scales, {"quant_method": "fp8"})
    with pytest.raises(CheckpointError, match=r"tensor a\.weight_scale_inv has type I32, which is not read"):
        source.tensors()


def test_a_model_of_integers_is_that_of_its_numbers(tmp_path):
    folder = write_checkpoint(tmp_path / "x", "qwen3")
    stored, coded, plain = load_file(folder / "model.safetensors"), {}, {}
    for name, values in stored.items():
        is_matrix = name.endswith("proj.weight")
        if is_matrix:
            scale = (values.float().abs().amax(1, keepdim=True) / 127).bfloat16()
            codes = (values.float() / scale.float()).round().clamp(-128, 127).to(torch.int8)
            coded |= {name: codes, f"{name}_scale": scale}
        else:
            coded[name] = values
        plain[name] = codes.float() * scale.float() if is_matrix else values
    twin = write_checkpoint(tmp_path / "twin", "qwen3")
    save_file(plain, twin / "model.safetensors", {"format": "pt"})
    save_file(coded, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = compressed("int-quantized", type="int", strategy="channel")
    (folder / "config.json").write_text(json.dumps(config))
    report = convert(folder, tmp_path / "a", BitPlan.uniform("q4", "q8"))
    convert(twin, tmp_path / "b", BitPlan.uniform("q4", "q8"))
    assert "int8 → q4" in report.rounding
    for file in sorted(path.name for path in (tmp_path / "b").glob("*.safetensors")):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
