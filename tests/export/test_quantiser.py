"""A plan and a trace as llama.cpp's quantiser takes them."""

from __future__ import annotations

import ctypes
import re

import gguf
import numpy as np
import pytest

pytest.importorskip("torch")
from helpers.tiny_models import write_checkpoint

from edgemoe.calib.widths.inputs import read_inputs
from edgemoe.cli.main import main
from edgemoe.convert import convert
from edgemoe.export import export_gguf, make_recipe
from edgemoe.models import read_spec
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    work = tmp_path_factory.mktemp("recipe")
    folder = write_checkpoint(work / "hf", "qwen3")
    plan = BitPlan(
        ExpertFormats("q4", "q3", "q8"),
        "q8",
        {(1, e): ExpertFormats("q2", "q3", "q8") for e in range(5)},
    )
    convert(folder, work / "store", plan)
    return work / "store"


def test_a_recipe_has_the_type_nearest_to_the_mean_width(store):
    recipe = make_recipe(open_store(store))
    types = [recipe.types[f"blk.{i}.ffn_{p}_exps.weight"] for i in (0, 1) for p in ("gate", "up", "down")]
    # Five of 2 and three of 4 bits are 2.75 on average.
    assert types == ["q4_k", "q3_k", "q8_0", "q3_k", "q3_k", "q8_0"]
    assert 0.05 < recipe.error < recipe.plan_error < 0.2
    for line in recipe.text().splitlines():
        pattern, _ = line.split("=")
        assert sum(re.search(pattern, name) is not None for name in recipe.types) == 1


def test_an_importance_matrix_is_the_mean_square_of_inputs(store, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a small river and a grey stone. " * 8)
    assert main(["trace", str(store), "--text", str(text), "-o", str(tmp_path / "trace")]) == 0
    out = tmp_path / "i.gguf"
    arguments = ["export", str(store), "--imatrix", str(out), "--trace", str(tmp_path / "trace")]
    assert main([*arguments, "--recipe", str(tmp_path / "types.txt")]) == 0
    reader = gguf.GGUFReader(out)
    tensors = {t.name: t.data for t in reader.tensors}
    assert reader.fields["general.type"].contents() == "imatrix"
    assert set(tensors) == {
        f"blk.{i}.ffn_{p}_exps.weight.{what}"
        for i in range(3)
        for p in ("gate", "up", "down")
        for what in ("in_sum2", "counts")
    }
    inputs = read_inputs(tmp_path / "trace", read_spec(open_store(store).config))
    x, weights = inputs.rows(2, 5)
    mean = (weights[:, None] * x**2).sum(axis=0) / weights.sum()
    found = tensors["blk.2.ffn_up_exps.weight.in_sum2"][5] / tensors["blk.2.ffn_up_exps.weight.counts"][5]
    assert found.shape == (64,)
    np.testing.assert_allclose(found, mean + 0.1 * mean.mean(), rtol=1e-4)
    assert np.array_equal(
        tensors["blk.2.ffn_gate_exps.weight.in_sum2"], tensors["blk.2.ffn_up_exps.weight.in_sum2"]
    )
    assert tensors["blk.0.ffn_down_exps.weight.in_sum2"].shape == (8, 32)
    assert (tensors["blk.0.ffn_down_exps.weight.in_sum2"] > 0).all()


def test_what_does_not_go_together_is_one_line(store, capsys):
    assert main(["export", str(store)]) == 2
    assert "nothing to write; give OUT, --recipe or --imatrix" in capsys.readouterr().err
    assert main(["export", str(store), "--imatrix", "i.gguf"]) == 2
    assert "give both or neither" in capsys.readouterr().err


def test_llama_cpp_takes_recipe_and_importance(tmp_path):
    """Its quantiser makes each tensor of experts the type that the recipe names, and heeds the importance."""
    llama_cpp = pytest.importorskip("llama_cpp")
    wide = {"hidden_size": 256, "head_dim": 64, "moe_intermediate_size": 256, "num_hidden_layers": 2}
    folder = write_checkpoint(tmp_path / "hf", "qwen3", **wide)
    convert(folder, tmp_path / "f32", BitPlan.uniform("f32", "f32"))
    export_gguf(tmp_path / "f32", tmp_path / "f32.gguf")
    plan = BitPlan(ExpertFormats("q4", "q3", "q2"), "q8", {(1, 0): ExpertFormats("q6", "q6", "q8")})
    convert(folder, tmp_path / "store", plan)
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a small river and a grey stone. " * 8)
    assert main(["trace", str(tmp_path / "store"), "--text", str(text), "-o", str(tmp_path / "trace")]) == 0
    made = ["--imatrix", str(tmp_path / "i.gguf"), "--trace", str(tmp_path / "trace")]
    made += ["--recipe", str(tmp_path / "types.txt")]
    assert main(["export", str(tmp_path / "store"), *made]) == 0
    lines = (tmp_path / "types.txt").read_text().split()
    recipe = make_recipe(open_store(tmp_path / "store"))
    importance = as_llama_quantize_reads(tmp_path / "i.gguf")
    before = {t.name: t for t in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    errors = []
    for chosen in ({}, importance):
        out = tmp_path / f"out{len(chosen)}.gguf"
        quantise(llama_cpp, tmp_path / "f32.gguf", out, lines, chosen)
        found = {t.name: t for t in gguf.GGUFReader(out).tensors}
        types = {name: tensor.tensor_type.name.lower() for name, tensor in found.items()}
        assert {name: types[name] for name in recipe.types} == recipe.types
        assert types["blk.0.attn_q.weight"] == "q8_0"
        errors.append(weighted_error(before, found, importance))
    assert errors[1] < 0.98 * errors[0]


def as_llama_quantize_reads(path):
    """Mean squares by tensor, as its tools/quantize does: sums over counts; 1 for experts without a token."""
    tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    found = {}
    for name in (n.removesuffix(".in_sum2") for n in tensors if n.endswith(".in_sum2")):
        sums, counts = tensors[f"{name}.in_sum2"], tensors[f"{name}.counts"].reshape(-1, 1)
        found[name] = np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)
    return found


def quantise(llama_cpp, source, out, lines, importance):
    """``llama-quantize --tensor-type ... --imatrix ... source out q8_0``, by the library's own function."""
    low = llama_cpp.llama_cpp
    low.llama_backend_init()
    params = low.llama_model_quantize_default_params()
    params.ftype, params.nthread = low.LLAMA_FTYPE_MOSTLY_Q8_0, 2

    class Override(ctypes.Structure):
        _fields_ = (("pattern", ctypes.c_char_p), ("type", ctypes.c_int))

    class Imatrix(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("data", ctypes.POINTER(ctypes.c_float)),
            ("size", ctypes.c_size_t),
        )

    pairs = [line.split("=") for line in lines]
    overrides = (Override * (len(pairs) + 1))(
        *((pattern.encode(), gguf.GGMLQuantizationType[kind.upper()].value) for pattern, kind in pairs)
    )
    params.tt_overrides = ctypes.cast(overrides, type(params.tt_overrides))
    entries = (Imatrix * (len(importance) + 1))(
        *(
            (name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
            for name, values in importance.items()
        )
    )
    if importance:
        params.imatrix = ctypes.cast(entries, type(params.imatrix))
    assert low.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0


def weighted_error(before, after, importance):
    """Squared change of the experts' weights, each column by its importance."""
    total = 0.0
    for name, weights in importance.items():
        kinds = before[name], after[name]
        values = [
            gguf.dequantize(t.data, t.tensor_type).reshape(len(weights), -1, weights.shape[1]) for t in kinds
        ]
        total += float((np.square(values[1] - values[0]) * weights[:, None]).sum())
    return total
