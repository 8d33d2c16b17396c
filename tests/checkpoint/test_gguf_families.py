"""GGUF files of every family that llama.cpp knows: the same bits as the folder they were made of."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_families import write_family_gguf
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

from edgemoe.checkpoint import open_checkpoint
from edgemoe.models import find_sources

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
VARIATIONS = (
    *("glm4", "glm4-groups-biases", "glm4-sums", "solar", "dots1", "minimax", "ernie", "hy"),
    *("granite", "granite-plain", "granite-shared", "qwen3vl"),
    *("glm4-lite", "deepseek2", "deepseek2-lite", "deepseek3"),
)


def run(path):
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    sources = find_sources(spec, {name: info.shape for name, info in source.tensors().items()})
    source.close()
    return decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32"))), sources


@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_file_is_the_same_model_as_the_folder(tmp_path, variation):
    folder = write_checkpoint(tmp_path / "hf", variation)
    ours, _ = run(write_family_gguf(folder, tmp_path / "model.gguf"))
    theirs, _ = run(folder)
    # Bits differ where a factor is kept in single precision in the file.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("variation", ["deepseek2-lite", "deepseek3"])
def test_old_files_have_keys_and_values_of_latents_in_one(tmp_path, variation):
    folder = write_checkpoint(tmp_path / "hf", variation)
    ours, _ = run(write_family_gguf(folder, tmp_path / "model.gguf", is_old=True))
    theirs, _ = run(folder)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_layers_that_predict_further_tokens_are_passed_over_by_name(tmp_path):
    folder = write_checkpoint(tmp_path / "hf", "glm4")
    ours, sources = run(write_family_gguf(folder, tmp_path / "model.gguf", extra_layers=2))
    assert np.array_equal(ours, run(folder)[0])
    assert sources.passed_over == {"layers that predict further tokens": 2}
