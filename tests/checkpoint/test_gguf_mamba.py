"""GGUF files of families with Mamba-2 layers: the same model as the folder, and as llama.cpp runs them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_mamba import write_mamba_gguf
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

from edgemoe.checkpoint import open_checkpoint

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 32).astype(np.int32)
# llama.cpp keeps keys and values in f16 and rounds activations to f16 before f16 products: 2^-11 each.
LLAMA_CPP_RELATIVE = 5e-3


def run(path):
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    source.close()
    return decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32")))


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
    llama_cpp = pytest.importorskip("llama_cpp")
    changes = {}
    if variation == "nemotron":  # llama.cpp has no dense networks beside experts in this architecture
        changes["layers_block_type"] = ["linear_attention", "moe", "full_attention", "moe"]
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    path = write_mamba_gguf(folder, tmp_path / "model.gguf")
    rival = llama_cpp.Llama(str(path), n_ctx=64, n_threads=2, logits_all=True, verbose=False)
    rival.eval(TOKENS.tolist())
    ours, theirs = run(path), np.array(rival.scores[: len(TOKENS)])
    errors = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    # The median over positions: where two experts nearly tie, rounding picks the other for one token.
    assert np.median(errors) < LLAMA_CPP_RELATIVE
