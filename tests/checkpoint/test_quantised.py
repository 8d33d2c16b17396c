"""Quantised folders are read as the numbers that their codes and scales stand for, any rows of them.

What codes mean is written down here again, in plain loops or by torch's own types.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from helpers.tiny_models import write_checkpoint
from safetensors.torch import load_file, save_file

from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.convert import convert
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.models import find_sources, read_spec
from edgemoe.quant import BitPlan

RANDOM = np.random.default_rng(8)
N, M, GROUP = 48, 64, 16


def words(codes, bits):
    """Codes along the last axis in words of 32 bits, the first in the lowest bits."""
    per_word = 32 // bits
    parts = codes.astype(np.uint32).reshape(*codes.shape[:-1], -1, per_word)
    return (parts << np.arange(0, 32, bits, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32).view(np.int32)


def as_torch(arrays):
    return {name: torch.from_numpy(np.ascontiguousarray(a)) if isinstance(a, np.ndarray) else a
            for name, a in arrays.items()}  # fmt: skip


def write(folder, tensors, settings):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "quantization_config": settings}))
    save_file(as_torch(tensors), folder / "model.safetensors")
    return open_checkpoint(folder)


def gptq(bits=4, is_second=False, has_order=False, is_symmetrical=False, says_second=None):
    """Weights (N, M) and their tensors; the settings may say another version."""
    per_word, groups = 32 // bits, M // GROUP
    codes = RANDOM.integers(0, 1 << bits, (N, M))
    zeros = RANDOM.integers(0, 1 << bits, (groups, N))
    zeros = np.full_like(zeros, 1 << (bits - 1)) if is_symmetrical else zeros
    scales = RANDOM.uniform(0.01, 0.1, (groups, N)).astype(np.float16)
    g_idx = (RANDOM.permutation(M) if has_order else np.arange(M)) // GROUP
    weights = np.empty((N, M), np.float32)
    for row in range(N):
        for col in range(M):
            g = g_idx[col]
            weights[row, col] = np.float32(scales[g, row]) * np.float32(codes[row, col] - zeros[g, row])
    tensors = {
        "a.qweight": words(codes, bits).T,
        "a.qzeros": words((zeros - (not is_second)) & ((1 << bits) - 1), bits),
        "a.scales": scales, "a.g_idx": g_idx.astype(np.int32),
    }  # fmt: skip
    assert tensors["a.qweight"].shape == (M // per_word, N)
    settings = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": has_order}
    settings |= {"sym": True} if is_symmetrical else {}
    is_second = is_second if says_second is None else says_second
    return weights, tensors, settings | {"checkpoint_format": "gptq_v2" if is_second else "gptq"}


def awq():
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    codes, zeros = RANDOM.integers(0, 16, (M, N)), RANDOM.integers(0, 16, (M // GROUP, N))
    scales = RANDOM.uniform(0.01, 0.1, (M // GROUP, N)).astype(np.float16)
    weights = (codes - np.repeat(zeros, GROUP, 0)) * np.repeat(scales.astype(np.float32), GROUP, 0)

    def packed(values):
        return words(values.reshape(len(values), -1, 8)[:, :, order].reshape(values.shape), 4)

    tensors = {"a.qweight": packed(codes), "a.qzeros": packed(zeros), "a.scales": scales}
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    return weights.T.astype(np.float32), tensors, settings


def compressed(bits=4, has_zeros=False, num_groups=M // GROUP):
    half = 1 << (bits - 1)
    codes = RANDOM.integers(-half, half, (N, M))
    scales = torch.from_numpy(RANDOM.uniform(0.01, 0.1, (N, num_groups)).astype(np.float32)).bfloat16()
    zeros = RANDOM.integers(-half, half, (N, num_groups)) if has_zeros else np.zeros((N, num_groups), int)
    size = M // num_groups
    weights = (codes - np.repeat(zeros, size, 1)) * np.repeat(scales.float().numpy(), size, 1)
    tensors = {
        "a.weight_packed": words(codes + half, bits), "a.weight_scale": scales,
        "a.weight_shape": np.array([N, M]),
    }  # fmt: skip
    if has_zeros:
        tensors["a.weight_zero_point"] = words((zeros + half).T, bits).T
    group = {"weights": {"num_bits": bits, "type": "int", "strategy": "group", "symmetric": not has_zeros}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                "config_groups": {"group_0": group}}  # fmt: skip
    return weights.astype(np.float32), tensors, settings


def float8(scale_shape, block=(32, 16)):
    codes = torch.randn(N, M, generator=torch.Generator().manual_seed(1)).mul(20).to(torch.float8_e4m3fn)
    scales = torch.rand(scale_shape, generator=torch.Generator().manual_seed(2)) + 0.5
    wide = scales.reshape(*(scale_shape or (1,)), *[1] * (2 - max(1, len(scale_shape))))
    rows, cols = (n if have > 1 else 1 for n, have in zip(block, wide.shape, strict=True))
    if scale_shape == (N, 1):
        rows = 1
    spread = wide.repeat_interleave(rows, 0).repeat_interleave(cols, 1)
    weights = codes.float() * (spread[: len(codes), : codes.shape[1]] if spread.numel() > 1 else spread)
    end = "weight_scale_inv" if len(scale_shape) == 2 and scale_shape[1] > 1 else "weight_scale"
    tensors = {"a.weight": codes, f"a.{end}": scales, "a.input_scale": torch.ones(1)}
    return weights.numpy(), tensors, {"quant_method": "fp8", "weight_block_size": list(block)}


def auto_round(packing, made, **options):
    weights, tensors, settings = made(**options)
    more = {"quant_method": "auto-round", "packing_format": f"auto_round:{packing}"}
    return weights, tensors, {key: settings[key] for key in ("bits", "group_size")} | {"sym": True} | more


CASES = {
    "gptq": gptq,
    "gptq, in the order of activations": lambda: gptq(has_order=True),
    "gptq, version 2": lambda: gptq(is_second=True),
    "gptq, 8 bits": lambda: gptq(bits=8),
    "gptq, symmetrical": lambda: gptq(is_symmetrical=True),
    "gptq, version 2 that calls itself 1": lambda: gptq(
        is_second=True, is_symmetrical=True, says_second=False
    ),
    "awq": awq,
    "auto-round as gptq": lambda: auto_round("auto_gptq", gptq, is_symmetrical=True),
    "auto-round as awq": lambda: auto_round("auto_awq", awq),
    "compressed-tensors": compressed,
    "compressed-tensors, zeros": lambda: compressed(has_zeros=True),
    "compressed-tensors, 8 bits by rows": lambda: compressed(8, num_groups=1),
    "fp8, blocks": lambda: float8((2, 4)),
    "fp8, rows": lambda: float8((N, 1)),
    "fp8, one scale": lambda: float8(()),
    "fp8, one scale, by modelopt": lambda: (
        *float8(())[:2],
        {"quant_method": "modelopt", "quant_algo": "FP8"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_any_rows_are_what_codes_and_scales_stand_for(tmp_path, name):
    weights, tensors, settings = CASES[name]()
    source = write(tmp_path / "x", tensors | {"b.weight": np.ones((2, 32), np.float32)}, settings)
    assert "quantization_config" not in source.config()
    assert source.tensors().keys() == {"a.weight", "b.weight"}
    assert source.tensors()["a.weight"].shape == (N, M)
    assert np.array_equal(source.read(SourceRef("a.weight")), weights)
    for start, stop in ((0, 1), (5, 19), (30, 48), (31, 33)):
        assert np.array_equal(source.read(SourceRef("a.weight", rows=(start, stop))), weights[start:stop])
    source.close()


def test_stacks_of_fp8_have_a_scale_for_every_block_of_every_entry(tmp_path):
    codes = torch.randn(3, 40, 64).to(torch.float8_e4m3fn)
    scales = torch.rand(3, 2, 4) + 0.5
    spread = scales.repeat_interleave(32, 1)[:, :40].repeat_interleave(16, 2)
    tensors = {"e.gate_up_proj": codes, "e.gate_up_proj_scale_inv": scales}
    source = write(tmp_path / "x", tensors, {"quant_method": "fp8", "weight_block_size": [32, 16]})
    assert source.tensors().keys() == {"e.gate_up_proj"}
    expected = (codes.float() * spread).numpy()
    assert np.array_equal(source.read(SourceRef("e.gate_up_proj", 2, (7, 35))), expected[2, 7:35])


@pytest.mark.parametrize("scale_shape", [(3,), (3, 1, 1), (), (3, 2, 1, 4, 1)])
def test_stacks_of_fp8_by_modelopt_have_a_scale_an_entry_or_one(tmp_path, scale_shape):
    codes = torch.randn(3, 40, 64).to(torch.float8_e4m3fn)
    scales = torch.rand(scale_shape) + 0.5
    plain = scales.reshape(3, 2, 4) if len(scale_shape) > 3 else scales.reshape(-1, 1, 1)
    spread = plain.repeat_interleave(32, 1)[:, :40].repeat_interleave(16, 2)[:, :, :64]
    tensors = {"e.down_proj": codes, "e.down_proj_weight_scale": scales}
    tensors["e.down_proj_input_scale"] = torch.ones(3)
    settings = {"quant_method": "modelopt", "quant_algo": "FP8", "weight_block_size": [32, 16]}
    source = write(tmp_path / "x", tensors, settings)
    assert source.tensors().keys() == {"e.down_proj"}
    expected = (codes.float() * (spread if len(scale_shape) > 3 else plain)).numpy()
    assert np.array_equal(source.read(SourceRef("e.down_proj", 2, (7, 35))), expected[2, 7:35])


def test_integers_of_two_widths_in_one_model_are_told_apart(tmp_path):
    """By their groups, which are of one size."""
    (four, parts, settings), (eight, others, _) = compressed(4), compressed(8)
    parts |= {name.replace("a.", "b."): part for name, part in others.items()}
    weights = {"num_bits": 8, "type": "int", "strategy": "group", "group_size": GROUP}
    settings["config_groups"]["group_0"]["weights"]["group_size"] = GROUP
    settings["config_groups"]["group_1"] = {"weights": weights}
    source = write(tmp_path / "x", parts, settings)
    assert np.array_equal(source.read(SourceRef("a.weight")), four)
    assert np.array_equal(source.read(SourceRef("b.weight")), eight)


def quantise_fp8(tensors, block):
    """Every matrix of the layers but routers in FP8; returns what the model then is as well."""
    coded, numbers = {}, {}
    for name, tensor in tensors.items():
        is_kept = tensor.ndim != 2 or "layers" not in name or name.endswith("mlp.gate.weight")
        if is_kept:
            coded[name] = numbers[name] = tensor
            continue
        rows, cols = tensor.shape
        scales = torch.ones(-(-rows // block), -(-cols // block)) * tensor.abs().max() / 400
        codes = (tensor / tensor.abs().max() * 400).to(torch.float8_e4m3fn)
        coded[name], coded[f"{name}_scale_inv"] = codes, scales
        numbers[name] = codes.float() * scales[0, 0]
    return coded, numbers


def test_a_quantised_model_is_the_one_of_its_numbers(tmp_path):
    """A whole folder in FP8 and its dequantised twin become the same store, byte for byte."""
    folder = write_checkpoint(tmp_path / "plain", "glm4")
    twin = write_checkpoint(tmp_path / "twin", "glm4")
    coded, numbers = quantise_fp8(load_file(folder / "model.safetensors"), 32)
    save_file(coded, folder / "model.safetensors", {"format": "pt"})
    save_file(numbers, twin / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [32, 32], "fmt": "e4m3"}
    (folder / "config.json").write_text(json.dumps(config))
    plan = BitPlan.uniform("q4", "q8")
    report = convert(folder, tmp_path / "a", plan)
    convert(twin, tmp_path / "b", plan)
    for file in sorted(path.name for path in (tmp_path / "b").glob("*.safetensors")):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert "F8_E4M3 → q4" in report.rounding


def test_biases_that_programs_add_are_no_part_of_the_model(tmp_path):
    _, tensors, settings = gptq()
    tensors["a.bias"] = np.zeros(N, np.float16)
    tensors["x.q_proj.bias"] = np.zeros(N, np.float16)
    source = write(tmp_path / "x", tensors, settings)
    assert source.tensors().keys() == {"a.weight", "x.q_proj.bias"}


def test_other_methods_are_refused_by_name(tmp_path):
    folder = write_checkpoint(tmp_path / "x", "glm4")
    config = json.loads((folder / "config.json").read_text())
    for settings, message in (
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantised by 'bitsandbytes', which is not"),
        ({"quant_method": "quip"}, "quantised by 'quip', which is not read; fp8, gptq, awq"),
    ):
        with pytest.raises(UnsupportedModelError, match=message):
            read_spec({**config, "quantization_config": settings})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, s: s.update(bits=3), "integers of 3 bits are not read"),
        (lambda t, s: t.pop("a.scales"), r"there is no matrix a\.scales"),
        (lambda t, s: s.update(group_size=32), "has 4 groups; config.json implies groups of 32"),
        (lambda t, s: s.update(bits=8), "they do not fit 8 bits"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    _, tensors, settings = gptq()
    change(tensors, settings)
    with pytest.raises(CheckpointError, match=message):
        write(tmp_path / "x", tensors, settings).tensors()


@pytest.mark.parametrize("change", [{"packing_format": "auto_round:llm_compressor"}, {"sym": False}])
def test_other_layouts_of_auto_round_are_refused_by_name(tmp_path, change):
    _, tensors, settings = auto_round("auto_gptq", gptq)
    with pytest.raises(CheckpointError, match=r"packing_format 'auto_round:.*' is not read"):
        write(tmp_path / "x", tensors, settings | change).tensors()


def test_fp8_without_scales_is_refused(tmp_path):
    source = write(
        tmp_path / "x", {"a.weight": torch.ones(4, 32).to(torch.float8_e4m3fn)}, {"quant_method": "fp8"}
    )
    with pytest.raises(CheckpointError, match=r"tensor a\.weight has type F8_E4M3 and no scales"):
        source.tensors()


def test_gptq_experts_are_found_by_their_usual_names(tmp_path):
    """One tensor in four of a real model's names is enough: names are those of the plain model."""
    folder = write_checkpoint(tmp_path / "x", "qwen3")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.3.down_proj"
    rows, cols = tensors.pop(f"{name}.weight").shape
    groups = cols // GROUP
    coded = {
        f"{name}.qweight": torch.randint(0, 1 << 30, (cols // 8, rows), dtype=torch.int32),
        f"{name}.qzeros": torch.randint(0, 1 << 30, (groups, rows // 8), dtype=torch.int32),
        f"{name}.scales": torch.rand(groups, rows).half(),
        f"{name}.g_idx": (torch.arange(cols) // GROUP).int(),
    }
    save_file(tensors | coded, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    (folder / "config.json").write_text(json.dumps(config))
    source = open_checkpoint(folder)
    spec = read_spec(source.config())
    sources = find_sources(spec, {n: i.shape for n, i in source.tensors().items()})
    assert source.read(sources.experts[1, 3, "down"]).shape == (rows, cols)
