"""GGUF files of families with mixers or experts of their own: the folder's model, and llama.cpp's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_hybrids import write_hybrid_gguf
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.tolerances import LLAMA_CPP_RELATIVE, median_relative

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
run = partial(logits_of, tokens=TOKENS)
VARIATIONS = ("qwen3.5", "qwen3.5-nested", "qwen3-next", "lfm2", "gpt-oss", "gemma4")


@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_file_is_the_same_model_as_the_folder(tmp_path, variation):
    # The files do not say where gpt-oss clamps.
    changes = {"swiglu_limit": 7.0} if variation == "gpt-oss" else {}
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    ours, theirs = run(write_hybrid_gguf(folder, tmp_path / "model.gguf")), run(folder)
    # Bits differ where exp and ln are taken twice.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


# What llama.cpp can run: heads of 32; and no YaRN of gpt-oss, whose bounds it rounds and transformers not.
CHANGES = {
    "qwen3.5": {"linear_key_head_dim": 32, "linear_value_head_dim": 32},
    "qwen3-next": {"linear_key_head_dim": 32, "linear_value_head_dim": 32},
    "lfm2": {},
    "gpt-oss": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}, "swiglu_limit": 7.0},
    "gemma4": {},
}


@pytest.mark.parametrize("variation", sorted(CHANGES))
def test_llama_cpp_gives_the_same_logits(tmp_path, variation):
    pytest.importorskip("llama_cpp")
    from helpers.llama_cpp_logits import llama_cpp_logits

    folder = write_checkpoint(tmp_path / "hf", variation, **CHANGES[variation])
    path = write_hybrid_gguf(folder, tmp_path / "model.gguf")
    ours = run(path)
    theirs = llama_cpp_logits(path, TOKENS)
    assert median_relative(ours, theirs) < LLAMA_CPP_RELATIVE
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.9
