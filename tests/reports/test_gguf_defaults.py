"""GGUF files of every family that lack a key: what llama.cpp takes for it, never what another library would.

Files of another year, and of other programs than llama.cpp's own converter, leave keys out.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
from helpers.gguf_families import write_family_gguf
from helpers.gguf_further import write_further_gguf
from helpers.gguf_hybrids import write_hybrid_gguf
from helpers.gguf_mamba import write_mamba_gguf
from helpers.gguf_vocabularies import make_tensors, write_model
from helpers.llama_cpp_logits import llama_cpp_logits
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.tolerances import LLAMA_CPP_RELATIVE, median_relative
from tokenizers import pre_tokenizers

from edgemoe.checkpoint import open_checkpoint
from edgemoe.errors import CheckpointError, UnsupportedModelError

VOCABULARY = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<e>"]
TOKENS = np.random.default_rng(3).integers(0, min(VOCAB_SIZE, len(VOCABULARY)), 24).astype(np.int32)
ours, theirs = partial(logits_of, tokens=TOKENS), partial(llama_cpp_logits, tokens=TOKENS)
NEMOTRON = {"layers_block_type": ["linear_attention", "moe", "full_attention", "moe"]}
SMALL_HEADS = {"linear_key_head_dim": 32, "linear_value_head_dim": 32}
LEFT_OUT = [
    (write_family_gguf, "glm4", {}, "expert_weights_norm"),
    (write_family_gguf, "glm4", {}, "rope.dimension_count"),
    (write_family_gguf, "glm4-lite", {}, "expert_weights_norm"),
    (write_family_gguf, "deepseek3", {}, "expert_weights_scale"),
    (write_family_gguf, "granite", {}, "attention.scale"),
    (write_further_gguf, "mimo", {}, "rope.dimension_count"),
    (write_hybrid_gguf, "gemma4", {}, "rope.freq_base"),
    (write_hybrid_gguf, "qwen3-next", SMALL_HEADS, "rope.dimension_count"),
    (write_mamba_gguf, "granite-hybrid", {}, "rope.scaling.finetuned"),
    (write_mamba_gguf, "nemotron", NEMOTRON, "expert_weights_norm"),
]


def without(path, key):
    """The file with another name in place of the key, which every program passes over."""
    data = path.read_bytes()
    name = data[data.index(key.encode()) - 40 : data.index(key.encode()) + len(key)].split(b"\0")[-1]
    assert data.count(name) >= 1
    path.write_bytes(data.replace(name, b"_" + name[1:], 1))
    return path


def write_plain(path, keys=None, tensors=None):
    """A Mixtral of one layer."""
    ends = {f"tokenizer.ggml.{role}_token_id": VOCABULARY.index("<e>") for role in ("bos", "eos")}
    keys = {**ends, **(keys or {})}
    return write_model(path, VOCABULARY, pre="qwen2", merges=["a b"], keys=keys, tensors=tensors)


@pytest.mark.parametrize(
    ("write", "variation", "changes", "key"), LEFT_OUT, ids=[f"{c[1]}-{c[3]}" for c in LEFT_OUT]
)
def test_a_key_that_is_missing_has_the_value_of_llama_cpp(tmp_path, write, variation, changes, key):
    path = write(write_checkpoint(tmp_path / "hf", variation, **changes), tmp_path / "model.gguf")
    whole = ours(path)
    left, expected = ours(without(path, key)), theirs(path)
    assert median_relative(left, expected) < LLAMA_CPP_RELATIVE
    assert not np.array_equal(left, whole), "the key means something"


@pytest.mark.parametrize("key", ["attention.scale", "embedding_scale", "residual_scale"])
def test_a_factor_of_0_is_none(tmp_path, key):
    path = write_mamba_gguf(write_checkpoint(tmp_path / "hf", "granite-hybrid"), tmp_path / "model.gguf")
    whole, data, name = ours(path), path.read_bytes(), f"granitehybrid.{key}".encode()
    value = data.index(name) + len(name) + 4  # behind the number of its type
    path.write_bytes(data[:value] + bytes(4) + data[value + 4 :])
    expected = theirs(path)
    assert median_relative(ours(path), expected) < LLAMA_CPP_RELATIVE < median_relative(whole, expected)


def test_a_key_without_which_nothing_can_be_told_is_named(tmp_path):
    path = write_family_gguf(write_checkpoint(tmp_path / "hf", "deepseek2"), tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"GGUF key deepseek2\.rope\.dimension_count is missing"):
        open_checkpoint(without(path, "rope.dimension_count"))


def test_a_router_that_deepseek_v2_does_not_have_is_refused(tmp_path):
    """llama.cpp honours the key in this architecture, which has files of other models too."""
    folder = write_checkpoint(tmp_path / "hf", "deepseek2", norm_topk_prob=True)
    path = write_family_gguf(folder, tmp_path / "model.gguf")
    with pytest.raises(UnsupportedModelError, match=r"deepseek2\.expert_weights_norm = True is not support"):
        open_checkpoint(path)


def test_of_two_names_for_an_epsilon_the_one_counts_that_llama_cpp_reads(tmp_path):
    path = write_mamba_gguf(write_checkpoint(tmp_path / "hf", "nemotron", **NEMOTRON), tmp_path / "m.gguf")
    whole = ours(path)
    assert np.array_equal(ours(without(path, "attention.layer_norm_epsilon")), whole)
    with pytest.raises(CheckpointError, match=r"attention\.layer_norm_rms_epsilon is missing"):
        open_checkpoint(without(path, "attention.layer_norm_rms_epsilon"))


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_a_stretch_is_that_of_layers_that_see_all(tmp_path, kind):
    """MiMo's others have a window and a base of their own, which llama.cpp leaves as they are."""
    folder = write_checkpoint(tmp_path / "hf", "mimo")
    plain = write_further_gguf(folder, tmp_path / "plain.gguf")
    stretch = {"type": kind, "factor": 4.0, "original_context_length": 16}
    path = write_further_gguf(
        folder, tmp_path / "m.gguf", {f"mimo2.rope.scaling.{key}": value for key, value in stretch.items()}
    )
    expected = theirs(path)
    assert median_relative(ours(path), expected) < LLAMA_CPP_RELATIVE
    assert not np.array_equal(ours(path), ours(plain))


def test_yarn_without_a_factor_stretches_nothing(tmp_path):
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.original_context_length": 32}
    path = write_plain(tmp_path / "m.gguf", yarn)
    expected = theirs(path)
    assert median_relative(ours(path), expected) < LLAMA_CPP_RELATIVE


def test_queries_keys_and_values_may_stand_in_one_tensor(tmp_path):
    parts = {p: make_tensors(len(VOCABULARY))[f"blk.0.attn_{p}.weight"] for p in "qkv"}
    fused = {f"blk.0.attn_{p}.weight": None for p in parts}
    fused["blk.0.attn_qkv.weight"] = np.concatenate([parts[p] for p in "qkv"])
    apart = write_plain(tmp_path / "apart.gguf")
    path = write_plain(tmp_path / "m.gguf", tensors=fused)
    expected = theirs(path)
    assert median_relative(ours(path), expected) < LLAMA_CPP_RELATIVE
    assert np.array_equal(ours(path), ours(apart))
