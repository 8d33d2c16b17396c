"""A plan and a trace as llama.cpp's quantiser takes them."""

from __future__ import annotations

import re

import gguf
import numpy as np
import pytest

pytest.importorskip("torch")
from helpers.tiny_models import write_checkpoint

from edgemoe.calib.widths.inputs import read_inputs
from edgemoe.cli.main import main
from edgemoe.convert import convert
from edgemoe.export import make_recipe
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
