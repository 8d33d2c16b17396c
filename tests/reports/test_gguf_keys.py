"""Keys of GGUF files: what llama.cpp reads is taken where it means nothing, else honoured or refused.

The lists are of its table of keys and of what its converter writes into files of the architectures.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from helpers.gguf_families import write_family_gguf
from helpers.gguf_hybrids import write_hybrid_gguf
from helpers.gguf_vocabularies import WIDTH, write_model
from helpers.tiny_models import write_checkpoint
from helpers.tolerances import LLAMA_CPP_RELATIVE, median_relative
from tokenizers import Tokenizer, pre_tokenizers

from edgemoe.checkpoint import open_checkpoint
from edgemoe.checkpoint.gguf.config import read_config
from edgemoe.checkpoint.gguf.container import read_container
from edgemoe.errors import EdgeMoEError, UnsupportedModelError
from edgemoe.models import read_spec

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
ARCHITECTURES = ("llama", "qwen2moe", "qwen3moe")
HEAD = WIDTH // 2
# Values at which a key changes nothing, and one at which it would.
KEYS = {
    "attention.key_length_swa": (HEAD, HEAD // 2),
    "attention.value_length_swa": (HEAD, HEAD // 2),
    "rope.dimension_count_swa": (HEAD, HEAD // 2),
    "rope.freq_base_swa": (10000.0, 500.0),
    "embedding_length_out": (WIDTH, 2 * WIDTH),
    "hidden_activation": ("silu", "gelu"),
    "attention.output_scale": (1.0, 0.5),
    "attention.value_scale": (1.0, 0.5),
    "attention.temperature_length": (0, 64),
    "attention.temperature_scale": (0.0, 0.1),
    "attention.shared_kv_layers": (0, 1),
    "embedding_length_per_layer_input": (0, 8),
    "expert_latent_length": (0, 8),
    "moe_latent_size": (0, 8),
    "n_deepstack_layers": (0, 3),
    "rope.scaling.alpha": (1.0, 1000.0),
    "rope.scaling.yarn_log_multiplier": (0.0, 0.1),
    "swiglu_clamp_exp": ([0.0, 0.0], [7.0, 7.0]),
    "swiglu_clamp_shexp": ([0.0, 0.0], [7.0, 7.0]),
    "use_parallel_residual": (False, True),
}


def plain(path, architecture="llama", **more):
    return write_model(path, BYTES, architecture=architecture, pre="qwen2", merges=None, **more)


def spec_of(path):
    return read_spec(open_checkpoint(path).config())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_keys_at_values_that_change_nothing(tmp_path, architecture):
    keys = {f"{architecture}.{name}": neutral for name, (neutral, _) in KEYS.items()}
    # Of norms that are not these, and of programs that count.
    keys |= {f"{architecture}.attention.layer_norm_epsilon": 1e-5, f"{architecture}.vocab_size": 256}
    path = plain(tmp_path / "m.gguf", architecture, keys=keys)
    assert spec_of(path) == spec_of(plain(tmp_path / "n.gguf", architecture))


@pytest.mark.parametrize("name", KEYS)
def test_keys_at_values_that_mean_something_are_refused_by_name(tmp_path, name):
    path = plain(tmp_path / "m.gguf", keys={f"llama.{name}": KEYS[name][1]})
    with pytest.raises(UnsupportedModelError, match=rf"llama\.{name} = .* is not supported"):
        open_checkpoint(path)


@pytest.mark.parametrize("value", [["yes", "no"], [1, 2], 3])
def test_a_key_that_is_not_known_is_named_whatever_it_has(tmp_path, value):
    path = plain(tmp_path / "m.gguf", keys={"llama.classifier.output_labels": value})
    with pytest.raises(UnsupportedModelError, match=r"llama\.classifier\.output_labels is not known"):
        open_checkpoint(path)


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}
USUAL = 0.1 * math.log(4.0) + 1.0


def with_yarn(path, **keys):
    return plain(path, keys={f"llama.{k}": v for k, v in {**YARN, **keys}.items()})


def test_what_multiplies_yarns_factor_is_honoured(tmp_path):
    pytest.importorskip("llama_cpp")
    from test_gguf_defaults import ours, theirs, write_plain

    usual = {f"llama.{key}": value for key, value in YARN.items()}
    keys = {**usual, "llama.rope.scaling.attn_factor": 0.25}
    path, without = write_plain(tmp_path / "m.gguf", keys), write_plain(tmp_path / "n.gguf", usual)
    assert open_checkpoint(path).config()["rope_scaling"]["attention_factor"] == pytest.approx(0.25 * USUAL)
    expected = theirs(path)
    assert (
        median_relative(ours(path), expected) < LLAMA_CPP_RELATIVE < median_relative(ours(without), expected)
    )


def test_a_factor_that_only_repeats_the_usual_one_is_taken(tmp_path):
    path = with_yarn(tmp_path / "m.gguf", **{"rope.scaling.yarn_attn_factor": USUAL})
    assert spec_of(path) == spec_of(with_yarn(tmp_path / "n.gguf"))
    path = with_yarn(tmp_path / "o.gguf", **{"rope.scaling.yarn_attn_factor": 2.0})
    with pytest.raises(UnsupportedModelError, match="yarn_attn_factor"):
        open_checkpoint(path)


def config_with(path, changes):
    read = read_container(path)
    metadata = {**read.metadata, **changes}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return read_config(metadata, {name: tensor.shape for name, tensor in read.tensors.items()})


def test_a_model_that_sees_is_read_for_its_texts(tmp_path):
    """GLM-4.5V and 4.6V: the architecture of GLM-4.5, and how images are rotated."""
    path = write_family_gguf(write_checkpoint(tmp_path / "hf", "glm4"), tmp_path / "model.gguf")
    changes = {"glm4moe.rope.dimension_sections": [8, 12, 12, 0], "glm4moe.expert_gating_func": 0}
    assert read_spec(config_with(path, changes)) == read_spec(config_with(path, {}))


@pytest.mark.parametrize("variation", ["glm4", "deepseek3", "dots1", "hy"])
def test_no_groups_of_experts_may_be_said_by_a_number(tmp_path, variation):
    path = write_family_gguf(write_checkpoint(tmp_path / "hf", variation), tmp_path / "model.gguf")
    architecture = read_container(path).metadata["general.architecture"]
    left_out = {f"{architecture}.expert_group_count": None, f"{architecture}.expert_group_used_count": None}
    assert read_spec(config_with(path, dict.fromkeys(left_out, 0))) == read_spec(config_with(path, left_out))


@pytest.mark.parametrize(
    ("value", "said"), [(False, r"_norm = False is not supported"), (None, r"_norm is missing")]
)
def test_a_router_that_hy_does_not_have_is_refused(tmp_path, value, said):
    """llama.cpp then leaves the weights of the chosen experts as they are."""
    path = write_family_gguf(write_checkpoint(tmp_path / "hf", "hy"), tmp_path / "model.gguf")
    architecture = read_container(path).metadata["general.architecture"]
    with pytest.raises(EdgeMoEError, match=said):
        config_with(path, {f"{architecture}.expert_weights_norm": value})


@pytest.mark.parametrize("key", ["rope.dimension_count", "rope.dimension_count_swa"])
def test_heads_of_gemma_that_turn_in_part_are_refused(tmp_path, key):
    """Which pairs of a head stand still is said by a tensor in this architecture."""
    path = write_hybrid_gguf(write_checkpoint(tmp_path / "hf", "gemma4"), tmp_path / "model.gguf")
    with pytest.raises(UnsupportedModelError, match=rf"gemma4\.{key} = 8 is not supported"):
        config_with(path, {f"gemma4.{key}": 8})
    assert read_spec(config_with(path, {f"gemma4.{key}": None})) == read_spec(config_with(path, {}))


@pytest.mark.parametrize(
    ("pattern", "sees_window"), [([True, False], [1, 0]), ([False, True], [0, 1]), (2, [1, 0]), (1, [0, 0])]
)
def test_layers_of_gpt_oss_that_see_a_window(tmp_path, pattern, sees_window):
    path = write_hybrid_gguf(write_checkpoint(tmp_path / "hf", "gpt-oss"), tmp_path / "model.gguf")
    num_layers = len(read_spec(config_with(path, {})).layers)
    if isinstance(pattern, list):
        pattern = (pattern * num_layers)[:num_layers]
    spec = read_spec(config_with(path, {"gpt-oss.attention.sliding_window_pattern": pattern}))
    assert [layer.mixer.window > 0 for layer in spec.layers] == (sees_window * num_layers)[:num_layers]


def test_special_tokens_of_phi_take_the_spaces_behind_them_along(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    tokens = [*BYTES, "<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>", "<|end|>", "ab"]
    keys = {"general.name": "Phi-3.5 MoE", "tokenizer.ggml.bos_token_id": 257}
    kinds = [1] * 256 + [3] * 6 + [1]
    path = write_model(tmp_path / "m.gguf", tokens, pre="gpt-2", merges=["a b"], kinds=kinds, keys=keys)
    ours = Tokenizer.from_str(open_checkpoint(path).files()["tokenizer.json"].decode())
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in ("<|user|>\n a<|end|> \n<|user|>b", "<s>\n a", "</s>  b<|endoftext|>  c<unk> d"):
        theirs = model.tokenize(text.encode(), add_bos=False, special=True)
        assert ours.encode(text, add_special_tokens=False).ids == theirs
    model.close()


def test_tokens_after_which_nothing_is_filled_in_end_an_answer(tmp_path):
    tokens = [*BYTES, "<e>", "<p>", "<r>", "<f>"]
    roles = ("eos", "fim_pad", "fim_rep", "fim_sep")
    keys = {f"tokenizer.ggml.{role}_token_id": 256 + i for i, role in enumerate(roles)}
    path = write_model(tmp_path / "m.gguf", tokens, pre="qwen2", merges=None, keys=keys)
    settings = json.loads(open_checkpoint(path).files()["generation_config.json"])
    assert settings["eos_token_id"] == [256, 257, 258, 259]


def test_advice_for_sampling_that_is_not_followed_is_told(tmp_path):
    keys = {
        "general.sampling.mirostat": 2,
        "tokenizer.ggml.suppress_tokens": np.array([3, 4], np.int32).tolist(),
    }
    source = open_checkpoint(plain(tmp_path / "m.gguf", keys=keys))
    assert json.loads(source.files()["generation_config.json"])["suppress_tokens"] == [3, 4]
    assert any("general.sampling.mirostat" in note for note in source.notes())


def test_an_architecture_of_another_program_is_named(tmp_path):
    """Ollama's own files of gpt-oss have other names of tensors and keys."""
    with pytest.raises(UnsupportedModelError, match="'gptoss' is another program's 'gpt-oss'"):
        open_checkpoint(plain(tmp_path / "m.gguf", "gptoss"))
