"""GGUF files of every family against llama.cpp itself: the same file, the same logits."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
llama_cpp = pytest.importorskip("llama_cpp")
from gguf import GGMLQuantizationType as Type
from helpers.gguf_files import write_gguf
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

from edgemoe.checkpoint import open_checkpoint

TOKENS = np.random.default_rng(5).integers(0, VOCAB_SIZE, 32).astype(np.int32)
# llama.cpp keeps keys and values in f16 and rounds activations to f16 before f16 products: 2^-11 each.
RELATIVE = 5e-3


@pytest.mark.parametrize("variation", ["qwen3", "qwen2", "olmoe", "mixtral"])
def test_llama_cpp_gives_the_same_logits(tmp_path, variation):
    # llama.cpp runs OLMoE only with as many heads of keys as of queries.
    changes = {"num_key_value_heads": 4} if variation == "olmoe" else {}
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    path = write_gguf(folder, tmp_path / "model.gguf", lambda name: Type.F32)
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    source.close()
    ours = decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32")))
    rival = llama_cpp.Llama(str(path), n_ctx=64, n_threads=2, logits_all=True, verbose=False)
    rival.eval(TOKENS.tolist())
    theirs = np.array(rival.scores[: len(TOKENS)])
    errors = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    # The median over positions: where two experts nearly tie, rounding picks the other for one token.
    assert np.median(errors) < RELATIVE
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.9
