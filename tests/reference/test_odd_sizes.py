"""Sizes that packed rows have no room for, filled up with zeros; against transformers, like test_decoders."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, build_model, write_checkpoint
from helpers.tolerances import F32_RELATIVE, relative

import edgemoe
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.quant import BitPlan

TOKENS = np.random.default_rng(9).integers(0, VOCAB_SIZE, 30).astype(np.int32)
# Heads times their dimension, widths of networks, ranks and the width of the model, none of them a multiple
# of 32: by variation, and what follows it after a space.
CASES = {
    "qwen2": {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "moe_intermediate_size": 40,
              "shared_expert_intermediate_size": 24, "intermediate_size": 48, "mlp_only_layers": [0]},
    "gpt-oss": {"intermediate_size": 40, "num_attention_heads": 6, "head_dim": 8},
    "gemma4": {"intermediate_size": 48, "moe_intermediate_size": 24},
    "granite-shared": {"intermediate_size": 24, "shared_intermediate_size": 40},
    "deepseek3": {"q_lora_rank": 24, "kv_lora_rank": 40, "v_head_dim": 12, "moe_intermediate_size": 40},
    "qwen3.5": {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_value_head_dim": 8},
    "kimi-linear": {"linear_num_heads": 3, "linear_head_dim": 8, "kv_lora_rank": 20, "q_lora_rank": 40},
    # Rotated by the family's own base, which no key says.
    "ling3": {"head_dim": 8, "num_attention_heads": 3, "num_key_value_heads": 3, "rope_parameters": None},
    "nemotron-latent": {"moe_latent_size": 48, "moe_intermediate_size": 24, "mamba_num_heads": 6,
                        "mamba_head_dim": 8, "moe_shared_expert_intermediate_size": 40},
    **{f"{variation} wide": {"hidden_size": 72} for variation in (
        "qwen3", "qwen2", "gpt-oss", "gemma4-kinds", "glm4", "deepseek3", "glm4-lite-layers", "ling3", "mimo",
        "lfm2-bias", "phi-plain", "hy-layers", "ernie-biases", "nemotron-latent", "kimi-linear", "qwen3.5",
        "qwen3-next", "flex-olmo", "minimax", "dots1", "granite-shared")},
    "olmoe wide": {"hidden_size": 48},
    "granite-hybrid wide": {"hidden_size": 48, "mamba_n_heads": 6, "mamba_d_head": 16},
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request, tmp_path_factory):
    changes, variation = CASES[request.param], request.param.split()[0]
    folder = write_checkpoint(tmp_path_factory.mktemp("odd"), variation, **changes)
    with torch.no_grad():
        model = build_model(variation, **changes)
        expected = model(torch.tensor(TOKENS[None].astype(np.int64)), use_cache=False).logits[0].numpy()
    return folder, expected


def test_logits_are_those_of_transformers_however_a_text_is_cut(case):
    folder, expected = case
    source = open_checkpoint(folder)
    spec, decoder = load_resident(source)
    source.close()

    def run(sizes):
        state = spec.new_state(len(TOKENS), "f32")
        chunks = np.split(TOKENS, np.cumsum(sizes)[:-1])
        return decoder.head(np.concatenate([decoder.forward(chunk, state) for chunk in chunks]))

    whole = run([len(TOKENS)])
    assert relative(whole, expected) < F32_RELATIVE
    assert np.array_equal(run([11, 1, 18]), whole)


def test_a_store_of_few_bits_has_the_bits_of_packed_matrices(case, tmp_path):
    folder, _ = case
    source = open_checkpoint(folder)
    spec, decoder = load_resident(source, "q4")
    source.close()
    expected = decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32")))
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q4"))
    with edgemoe.load(tmp_path / "store", "4GiB", context=64, kv_format="f32") as model:
        assert np.array_equal(model.logits(TOKENS.tolist()), expected)


@pytest.mark.parametrize("stated", [{}, {"factor": 4.0}, {"attention_factor": 1.3}])
def test_longrope_divides_each_pair_within_the_first_context(tmp_path, stated):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 5000.0,
        "original_max_position_embeddings": 40,
        **stated,
        "short_factor": [1.0 + 0.2 * i for i in range(16)],
        "long_factor": [4.0] * 16,
    }
    folder = write_checkpoint(tmp_path, "qwen3", rope_parameters=rope)
    with torch.no_grad():
        model = build_model("qwen3", rope_parameters=rope)
        expected = model(torch.tensor(TOKENS[None].astype(np.int64))).logits[0].numpy()
    source = open_checkpoint(folder)
    spec, decoder = load_resident(source)
    source.close()
    assert spec.max_context == 40
    state = spec.new_state(len(TOKENS), "f32")
    assert relative(decoder.head(decoder.forward(TOKENS, state)), expected) < F32_RELATIVE
