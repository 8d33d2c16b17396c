"""GGUF files of families with Mamba-2 layers: the same model as the folder, and as llama.cpp runs them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_mamba import write_mamba_gguf
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.tolerances import LLAMA_CPP_RELATIVE, median_relative

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 32).astype(np.int32)
run = partial(logits_of, tokens=TOKENS)


# What GGUF files cannot say.
UNSAID = {"granite-hybrid-rope": {"time_step_limit": [0.0, 1e9]}, "nemotron-latent": {"mlp_bias": False}}


@pytest.mark.parametrize(
    "variation", ["granite-hybrid", "granite-hybrid-rope", "nemotron", "nemotron-latent"]
)
def test_a_file_is_the_same_model_as_the_folder(tmp_path, variation):
    changes = UNSAID.get(variation, {})
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    ours, theirs = run(write_mamba_gguf(folder, tmp_path / "model.gguf")), run(folder)
    # Bits differ where a factor is kept in single precision in the file.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("variation", ["granite-hybrid", "nemotron"])
def test_llama_cpp_gives_the_same_logits(tmp_path, variation):
    pytest.importorskip("llama_cpp")
    from helpers.llama_cpp_logits import llama_cpp_logits

    changes = {}
    if variation == "nemotron":  # llama.cpp has no dense networks beside experts in this architecture
        changes["layers_block_type"] = ["linear_attention", "moe", "full_attention", "moe"]
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    path = write_mamba_gguf(folder, tmp_path / "model.gguf")
    assert median_relative(run(path), llama_cpp_logits(path, TOKENS)) < LLAMA_CPP_RELATIVE
