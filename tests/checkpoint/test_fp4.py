"""Checkpoints in NVFP4 and MXFP4, numbers of 4 bits, as compressed-tensors and modelopt leave them."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from safetensors.torch import load_file, save_file

from edgemoe import native
from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.convert import convert, plan_as_stored
from edgemoe.errors import CheckpointError
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store

N, M = 48, 128
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4"}


def write(folder, tensors, settings=None):
    folder.mkdir(exist_ok=True)
    config = {"model_type": "x"} | ({"quantization_config": settings} if settings else {})
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    return open_checkpoint(folder)


def drawn(seed, *shape):
    """Pairs (..., N, M / 2), scales as torch's FP8 (..., N, M / 16), a factor, and what they stand for."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (*shape, N, M), np.uint8)
    scales = torch.from_numpy(rng.integers(0, 127, (*shape, N, M // 16), np.uint8)).view(torch.float8_e4m3fn)
    factors = rng.uniform(0.001, 0.01, shape).astype(np.float32)
    wide = np.repeat(scales.float().numpy() * factors[..., None, None], 16, axis=-1)
    pairs = torch.from_numpy(codes[..., 0::2] | codes[..., 1::2] << 4)
    return pairs, scales, torch.from_numpy(np.asarray(factors)), E2M1[codes] * wide


def modelopt():
    pairs, scales, factor, weights = drawn(1)
    parts = {"a.weight": pairs, "a.weight_scale": scales, "a.weight_scale_2": factor}
    return "a.weight", parts | {"a.input_scale": torch.ones(())}, MODELOPT, weights


def stacked():
    pairs, scales, factors, weights = drawn(2, 3)
    parts = {"a.up": pairs, "a.up_weight_scale": scales, "a.up_weight_scale_2": factors}
    return "a.up", parts | {"a.up_input_scale": torch.ones(3)}, MODELOPT, weights


def inputs_first():
    name, parts, settings, weights = stacked()
    turned = {n: t.transpose(1, 2) if t.ndim == 3 else t for n, t in parts.items()}
    return name, turned, settings, weights.transpose(0, 2, 1)


def compressed():
    """Divided by its factor; by a power of two, so that nothing is rounded."""
    pairs, scales, factor, weights = drawn(3)
    parts = {
        "a.weight_packed": pairs,
        "a.weight_scale": scales,
        "a.weight_global_scale": torch.tensor([512.0]),
    }
    settings = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    parts["a.input_global_scale"] = torch.ones(1)
    return "a.weight", parts, settings, weights / np.float32(factor) / 512


FORMS = pytest.mark.parametrize("form", [modelopt, stacked, inputs_first, compressed])


@FORMS
def test_any_rows_are_what_numbers_scales_and_factor_stand_for(tmp_path, form):
    name, parts, settings, weights = form()
    source = write(tmp_path / "x", parts, settings)
    assert "quantization_config" not in source.config()
    info = source.tensors()[name]
    assert source.tensors().keys() == {name}
    assert (info.shape, info.dtype) == (weights.shape, "NVFP4")
    index = 2 if weights.ndim == 3 else None
    expected = weights[index] if index else weights
    for start, stop in ((0, len(expected)), (0, 1), (5, 19), (31, 33)):
        found = source.read(SourceRef(name, index, (start, stop)))
        np.testing.assert_allclose(found, expected[start:stop], rtol=2e-7)
    source.close()


@pytest.mark.parametrize("form", [modelopt, stacked, compressed])
def test_a_store_holds_them_as_they_are(tmp_path, form):
    name, parts, settings, weights = form()
    source = write(tmp_path / "x", parts, settings)
    assert source.tensors()[name].exact_format == "nvfp4"
    ref = SourceRef(name, 1 if weights.ndim == 3 else None, (3, 40))
    packed = source.read_packed(ref)
    assert np.array_equal(native.dequantize(packed, "nvfp4", 37, M), source.read(ref))


def test_what_compressed_tensors_writes_is_read_as_it_reads_it(tmp_path):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(N, M, generator=generator) * 0.02
    args = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    factor = 448 * 6 / weight.abs().max()
    largest = weight.reshape(N, -1, 16).abs().amax(2) / 6 * factor
    state = {
        "weight": weight,
        "weight_scale": largest.to(torch.float8_e4m3fn).float(),
        "weight_global_scale": factor.reshape(1),
    }
    compressor = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized")
    stored = compressor.compress(state, scheme)
    theirs = compressor.decompress(dict(stored), scheme)["weight"].float().numpy()
    settings = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    source = write(tmp_path / "x", {f"a.{n}": t for n, t in stored.items()}, settings)
    ours = source.read(SourceRef("a.weight"))
    # They give 16 bits with a mantissa of 8, we 32.
    np.testing.assert_allclose(ours, theirs, rtol=2**-8)
    assert np.linalg.norm(ours - weight.numpy()) < 0.12 * np.linalg.norm(weight.numpy())


def test_mxfp4_of_compressed_tensors_is_that_of_its_library(tmp_path):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    rng = np.random.default_rng(5)
    stored = {
        "weight_packed": torch.from_numpy(rng.integers(0, 256, (N, M // 2), np.uint8)),
        "weight_scale": torch.from_numpy(rng.integers(110, 130, (N, M // 32), np.uint8)),
    }
    args = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32)
    compressor = BaseCompressor.get_value_from_registry("mxfp4-pack-quantized")
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    theirs = compressor.decompress(dict(stored), scheme)["weight"].float().numpy()
    settings = {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}
    source = write(tmp_path / "x", {f"a.{n}": t for n, t in stored.items()}, settings)
    assert np.array_equal(source.read(SourceRef("a.weight")), theirs)
    assert source.tensors()["a.weight"].exact_format == "mxfp4"


def in_nvfp4(weight):
    """A matrix in modelopt's parts, and the numbers that these stand for."""
    weight = weight.float()
    factor = weight.abs().max() / (6 * 448)
    scales = (weight.reshape(len(weight), -1, 16).abs().amax(2) / 6 / factor).to(torch.float8_e4m3fn)
    wide = (scales.float() * factor).repeat_interleave(16, 1)
    codes = (weight / wide.clamp(min=1e-20))[..., None].sub(torch.from_numpy(E2M1)).abs().argmin(2)
    pairs = (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)
    return (pairs, scales, factor), torch.from_numpy(E2M1)[codes] * wide


def test_a_model_by_modelopt_becomes_a_store_without_a_change(tmp_path):
    """Experts in NVFP4, attention in FP8, said in a file of its own: the model of the numbers."""
    sizes = {"moe_intermediate_size": 64, "num_hidden_layers": 2}
    folder = write_checkpoint(tmp_path / "coded", "qwen3", **sizes)
    twin = write_checkpoint(tmp_path / "twin", "qwen3", **sizes)
    coded, numbers = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        coded[name] = numbers[name] = tensor
        if ".experts." in name:
            parts, numbers[name] = in_nvfp4(tensor)
            coded |= dict(zip((name, f"{name}_scale", f"{name}_scale_2"), parts, strict=True))
            coded[name.replace("weight", "input_scale")] = torch.ones(())
        elif "q_proj.weight" in name:
            scale = tensor.abs().max() / 448
            coded[name] = (tensor / scale).to(torch.float8_e4m3fn)
            coded[f"{name}_scale"], numbers[name] = scale, coded[name].float() * scale
    save_file(coded, folder / "model.safetensors", {"format": "pt"})
    save_file(numbers, twin / "model.safetensors", {"format": "pt"})
    layers = {"model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"}}
    said = {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8", "quantized_layers": layers}
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": said}))
    plan = plan_as_stored(folder, BitPlan.uniform("q4", "f32"))
    assert plan.default == ExpertFormats.uniform("nvfp4")
    report = convert(folder, tmp_path / "store", plan)
    assert report.rounding["NVFP4 → nvfp4"] == 0
    assert open_store(tmp_path / "store").manifest.experts[1, 2].formats.down == "nvfp4"
    tokens = np.random.default_rng(3).integers(0, VOCAB_SIZE, 16).astype(np.int32)
    logits = []
    for place in (folder, twin):
        source = open_checkpoint(place)
        spec, decoder = load_resident(source)
        source.close()
        logits.append(decoder.head(decoder.forward(tokens, spec.new_state(len(tokens), "f32"))))
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, s: p.pop("a.weight_scale_2"), r"there is no a\.weight_scale_2, which a\.weight needs"),
        (lambda p, s: p.update({"a.weight_scale": p["a.weight_scale"][:, 1:]}), "they do not fit"),
        (lambda p, s: p.update({"a.weight_scale_2": torch.ones(5)}), "they do not fit"),
        (lambda p, s: s.update(quant_algo="NVFP4_AWQ"), "modelopt's 'NVFP4_AWQ', which is not read"),
        (lambda p, s: s.update(quantized_layers={"a": {"quant_algo": "W4A8_AWQ"}}), "'W4A8_AWQ', which is"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    _, parts, settings, _ = modelopt()
    settings = dict(settings)
    change(parts, settings)
    with pytest.raises(CheckpointError, match=message):
        write(tmp_path / "x", parts, settings).tensors()


def test_scales_that_are_no_numbers_are_refused_with_their_row(tmp_path):
    name, parts, settings, _ = modelopt()
    parts["a.weight_scale"].view(torch.uint8)[7, 3] = 0x7F
    source = write(tmp_path / "x", parts, settings)
    with pytest.raises(CheckpointError, match=r"tensor a\.weight: row 7 holds weights that are not finite"):
        source.read_packed(SourceRef(name, None, (0, N)))
    parts["a.weight_scale_2"] = torch.tensor(float("inf"))
    source = write(tmp_path / "y", parts, settings)
    with pytest.raises(CheckpointError, match=r"a\.weight_scale_2 is inf, which scales nothing"):
        source.read(SourceRef(name))
