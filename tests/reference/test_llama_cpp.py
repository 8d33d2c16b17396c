"""GGUF files of every family against llama.cpp itself: the same file, the same logits."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
from gguf import GGMLQuantizationType as Type
from helpers.gguf_files import write_gguf
from helpers.llama_cpp_logits import llama_cpp_logits
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.tolerances import LLAMA_CPP_RELATIVE, median_relative

from edgemoe.convert import convert
from edgemoe.export import export_gguf
from edgemoe.quant import BitPlan

TOKENS = np.random.default_rng(5).integers(0, VOCAB_SIZE, 32).astype(np.int32)


@pytest.mark.parametrize("variation", ["qwen3", "qwen2", "olmoe", "mixtral"])
def test_llama_cpp_gives_the_same_logits(tmp_path, variation):
    # llama.cpp runs OLMoE only with as many heads of keys as of queries.
    changes = {"num_key_value_heads": 4} if variation == "olmoe" else {}
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    path = write_gguf(folder, tmp_path / "model.gguf", lambda name: Type.F32)
    compare(path)


EXPORTED = {
    "qwen3": {},
    "qwen2": {},
    "mixtral": {},
    "glm4-groups-biases": {},
    "minimax": {},
    "ernie": {},
    "hy": {},
    "granite-shared": {},
    "deepseek2": {},
    "deepseek3": {},
    "qwen3vl": {},
    "solar": {},
    # llama.cpp runs delta nets with heads of 32.
    "qwen3.5": {"linear_key_head_dim": 32, "linear_value_head_dim": 32},
    "qwen3-next": {"linear_key_head_dim": 32, "linear_value_head_dim": 32},
    "glm4-lite": {},
    # llama.cpp clamps at 7.
    "gpt-oss": {"swiglu_limit": 7.0, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "dots1": {"num_key_value_heads": 4},  # llama.cpp runs it only with as many as heads of queries
    "lfm2": {},
    "gemma4": {},
    "granite-hybrid": {},
    # llama.cpp has no dense networks beside experts in this architecture, and no biases.
    "nemotron": {"layers_block_type": ["linear_attention", "moe", "full_attention", "moe"]},
    "nemotron-latent": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
        "mlp_bias": False,
    },
    # As many linear heads as others, which files have one number for.
    "kimi-linear": {"linear_num_heads": 4, "num_shared_experts": 1},
    "ling3": {"head_dim": 32},
    "mimo": {},
}


@pytest.mark.parametrize("variation", EXPORTED)
def test_llama_cpp_runs_what_is_exported(tmp_path, variation):
    folder = write_checkpoint(tmp_path / "hf", variation, **EXPORTED[variation])
    convert(folder, tmp_path / "store", BitPlan.uniform("f32", "f32"))
    export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    compare(tmp_path / "model.gguf")


def test_yarn_goes_along_beyond_the_first_context(tmp_path):
    """A stretch of 4, with bounds that are whole numbers: llama.cpp rounds them, and the model does not."""
    context, num_dims, last = 32, 32, 3
    theta = math.exp(num_dims * math.log(context / (2 * math.pi)) / (2 * last)) * 1.0005
    rope = {"rope_type": "yarn", "rope_theta": theta, "factor": 4.0, "truncate": False}
    rope["original_max_position_embeddings"] = context
    folder = write_checkpoint(tmp_path / "hf", "gpt-oss", swiglu_limit=7.0, rope_parameters=rope)
    convert(folder, tmp_path / "store", BitPlan.uniform("f32", "f32"))
    report = export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    assert report.notes[0].endswith("0.00 to 3.00 become 0 to 3, as in any other file")
    tokens = np.random.default_rng(6).integers(0, VOCAB_SIZE, 3 * context).astype(np.int32)
    compare(tmp_path / "model.gguf", tokens=tokens)


@pytest.mark.parametrize("bits", ["q3", "q4"])
def test_llama_cpp_runs_our_codes(tmp_path, bits):
    wide = {"hidden_size": 256, "head_dim": 64, "moe_intermediate_size": 256}
    folder = write_checkpoint(tmp_path / "hf", "qwen3", **wide)
    convert(folder, tmp_path / "store", BitPlan.uniform(bits, "f32"))
    export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    # llama.cpp rounds activations to 8 bits; a wrong code would change the logits by their whole size.
    compare(tmp_path / "model.gguf", 0.1, agreement=0.7)


def compare(path, bound=LLAMA_CPP_RELATIVE, agreement=0.9, tokens=TOKENS):
    ours, theirs = logits_of(path, tokens), llama_cpp_logits(path, tokens)
    assert median_relative(ours, theirs) < bound
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > agreement
