"""GGUF files of Kimi Linear, Ling 3, MiMo-V2-Flash and Phi-3.5-MoE: the folder's model, and llama.cpp's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_further import write_further_gguf
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

from edgemoe.checkpoint import open_checkpoint

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
# llama.cpp keeps keys and values in f16 and rounds activations to f16 before f16 products: 2^-11 each.
RELATIVE = 5e-3
# What the files can say: linear heads are as many as the others, and sparse layers come last.
CHANGES = {
    "kimi-linear": {"linear_num_heads": 4, "num_shared_experts": 1},
    "ling3": {"head_dim": 32},
    "mimo": {},
    "phi": {"router_jitter_noise": 0.01},
}


def run(path):
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    source.close()
    return decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32")))


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
    llama_cpp = pytest.importorskip("llama_cpp")
    _, path, ours = case
    rival = llama_cpp.Llama(str(path), n_ctx=64, n_threads=2, logits_all=True, verbose=False)
    rival.eval(TOKENS.tolist())
    theirs = np.array(rival.scores[: len(TOKENS)])
    errors = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    # The median over positions: where two experts nearly tie, rounding picks the other for one token.
    assert np.median(errors) < RELATIVE
