"""GGUF files of Kimi Linear, Ling 3, MiMo-V2-Flash and Phi-3.5-MoE: the folder's model, and llama.cpp's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_further import write_further_gguf
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.tolerances import LLAMA_CPP_RELATIVE, median_relative

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
run = partial(logits_of, tokens=TOKENS)
# What the files can say: linear heads are as many as the others, and sparse layers come last.
CHANGES = {
    "kimi-linear": {"linear_num_heads": 4, "num_shared_experts": 1},
    "ling3": {"head_dim": 32},
    "mimo": {},
    "phi": {"router_jitter_noise": 0.01},
}


@pytest.fixture(scope="module", params=sorted(CHANGES))
def case(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("further")
    folder = write_checkpoint(place / "hf", request.param, **CHANGES[request.param])
    path = write_further_gguf(folder, place / "model.gguf")
    return folder, path, run(path)


def test_a_file_is_the_same_model_as_the_folder(case):
    folder, _, ours = case
    theirs = run(folder)
    # Bits differ where a factor is kept in single precision in the file.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


# llama.cpp weighs Phi's experts by another rule than the model's authors.
@pytest.mark.parametrize("case", sorted({*CHANGES} - {"phi"}), indirect=True)
def test_llama_cpp_gives_the_same_logits(case):
    pytest.importorskip("llama_cpp")
    from helpers.llama_cpp_logits import llama_cpp_logits

    _, path, ours = case
    theirs = llama_cpp_logits(path, TOKENS)
    assert median_relative(ours, theirs) < LLAMA_CPP_RELATIVE
