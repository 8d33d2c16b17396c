"""config.json as published checkpoints, fine-tuning tools and older libraries write it.

Key sets are those of the files on the Hub, sizes cut down. What means nothing is accepted, and a value that
would mean something is refused by its name.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports.published_configs import PUBLISHED_MORE

from edgemoe.errors import UnsupportedModelError
from edgemoe.models import read_spec
from edgemoe.models.config_keys import IGNORED, NEUTRAL

QWEN3_30B = {
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02, "intermediate_size": 768,
    "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
    "model_type": "qwen3_moe", "moe_intermediate_size": 96, "norm_topk_prob": True,
    "num_attention_heads": 4, "num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_scaling": None,
    "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
    "use_cache": True, "use_sliding_window": False, "vocab_size": 320,
}  # fmt: skip
QWEN3_CODER = QWEN3_30B | {
    "max_window_layers": 28, "qkv_bias": False, "rope_theta": 10000000, "shared_expert_intermediate_size": 0,
    "use_qk_norm": True, "max_position_embeddings": 262144,
}  # fmt: skip
QWEN15 = {
    "architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "decoder_sparse_step": 1, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 8192,
    "max_window_layers": 21, "model_type": "qwen2_moe", "moe_intermediate_size": 32,
    "norm_topk_prob": False, "num_attention_heads": 4, "num_experts": 60, "num_experts_per_tok": 4,
    "num_hidden_layers": 2, "num_key_value_heads": 4, "output_router_logits": False,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 64, "sliding_window": 32768, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.39.0.dev0", "use_cache": True,
    "use_sliding_window": False, "vocab_size": 320,
}  # fmt: skip
OLMOE = {
    "architectures": ["OlmoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "clip_qkv": None, "eos_token_id": 50279, "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 32, "max_position_embeddings": 4096,
    "model_type": "olmoe", "norm_topk_prob": False, "num_attention_heads": 4, "num_experts": 8,
    "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 4,
    "output_router_logits": False, "pad_token_id": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
    "rope_theta": 10000.0, "router_aux_loss_coef": 0.01, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": True, "vocab_size": 320,
}  # fmt: skip
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
    "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 4,
    "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 8,
    "output_router_logits": False, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02, "sliding_window": None, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.36.0.dev0", "use_cache": True, "vocab_size": 320,
}  # fmt: skip
NEMOTRON = {
    "model_type": "nemotron_h", "layers_block_type": ["moe", "mamba"], "hidden_size": 64, "vocab_size": 96,
    "n_routed_experts": 4, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 64,
}  # fmt: skip
PUBLISHED = {
    "Qwen3-30B-A3B": QWEN3_30B,
    "Qwen3-Coder-30B-A3B-Instruct": QWEN3_CODER,
    "Qwen1.5-MoE-A2.7B": QWEN15,
    "OLMoE-1B-7B-0924": OLMOE,
    "Mixtral-8x7B-v0.1": MIXTRAL,
}

# Every field that PretrainedConfig of transformers 4 wrote when a file was not cut to the differences.
TRANSFORMERS_4_DEFAULTS = {
    "return_dict": True, "output_hidden_states": False, "output_attentions": False, "torchscript": False,
    "torch_dtype": None, "use_bfloat16": False, "tf_legacy_loss": False, "pruned_heads": {},
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "is_decoder": False,
    "cross_attention_hidden_size": None, "add_cross_attention": False, "tie_encoder_decoder": False,
    "max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1,
    "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
    "output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "remove_invalid_values": False, "exponential_decay_length_penalty": None,
    "suppress_tokens": None, "begin_suppress_tokens": None, "finetuning_task": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "tokenizer_class": None, "prefix": None, "bos_token_id": None, "pad_token_id": None,
    "eos_token_id": None, "sep_token_id": None, "decoder_start_token_id": None,
    "task_specific_params": None, "problem_type": None, "_name_or_path": "/data/checkpoint-500",
    "_attn_implementation_autoset": True, "output_past": True,
}  # fmt: skip
TOOLS = {
    "transformers 4, all defaults": TRANSFORMERS_4_DEFAULTS,
    "transformers 5": {
        "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "experts_implementation": "grouped_mm",
        "keys_to_ignore_at_inference": ["past_key_values"],
    },
    "Unsloth": {"unsloth_fixed": True, "unsloth_version": "2025.5.1", "pad_token_id": 151654},
    "axolotl": {"_name_or_path": "mistralai/Mixtral-8x7B-v0.1", "use_cache": False, "eos_token_id": [2, 7]},
    "LLaMA-Factory": {"_attn_implementation_autoset": True, "output_router_logits": True},
    "flash attention of older forks": {"_flash_attn_2_enabled": True, "use_flash_attn": True},
    "transformers.js": {"transformers.js_config": {"dtype": "q4", "use_external_data_format": True}},
    "sampling": {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
}


@pytest.mark.parametrize(
    "config", [*PUBLISHED.values(), *PUBLISHED_MORE.values()], ids=[*PUBLISHED, *PUBLISHED_MORE]
)
def test_published_configurations_are_read(config):
    assert read_spec(json.loads(json.dumps(config))).width == config["hidden_size"]


@pytest.mark.parametrize("extra", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize("config", PUBLISHED_MORE.values(), ids=PUBLISHED_MORE)
def test_what_tools_add_is_accepted_by_every_family(config, extra):
    extra = {key: value for key, value in extra.items() if key != "rope_parameters"}
    assert read_spec(config | extra) == read_spec(config)


@pytest.mark.parametrize("extra", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED)
def test_what_tools_add_changes_nothing(config, extra):
    # Two spellings of one base: the older key is what the newer one repeats.
    config = config | {"rope_theta": 1000000.0}
    assert read_spec(config | extra) == read_spec(config)


@pytest.mark.parametrize(
    ("config", "change", "named"),
    [
        (QWEN3_30B, {"use_qk_norm": False}, "use_qk_norm = False"),
        (QWEN3_30B, {"shared_expert_intermediate_size": 512}, "shared_expert_intermediate_size = 512"),
        (QWEN3_30B, {"qkv_bias": True}, "qkv_bias = True"),
        (QWEN3_30B, {"first_k_dense_replace": 1}, "first_k_dense_replace = 1"),
        (QWEN3_30B, {"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        (QWEN3_30B, {"routed_scaling_factor": 2.5}, "routed_scaling_factor = 2.5"),
        (QWEN15, {"use_qk_norm": True}, "use_qk_norm = True"),
        (QWEN15, {"layer_types": ["full_attention"]}, "of each of the 2 layers"),
        (
            QWEN15,
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types has sliding_attention, and use_sliding_window is not true",
        ),
        (NEMOTRON, {"time_step_limit": [0.1, 0.9]}, "time_step_limit"),
        (NEMOTRON, {"time_step_min": 0.01}, "time_step_min = 0.01"),
        (MIXTRAL, {"norm_topk_prob": False}, "norm_topk_prob = False"),
        (MIXTRAL, {"is_causal": False}, "is_causal = False"),
        (MIXTRAL, {"is_causal": None}, "is_causal = None"),
        (MIXTRAL, {"attention_bias": True}, "attention_bias = True"),
        (MIXTRAL, {"add_cross_attention": True}, "add_cross_attention = True"),
        (MIXTRAL, {"is_encoder_decoder": True}, "is_encoder_decoder = True"),
        (MIXTRAL, {"tie_encoder_decoder": True}, "tie_encoder_decoder = True"),
        (MIXTRAL, {"pruned_heads": {"0": [1]}}, "pruned_heads = {'0': .1.}"),
        (OLMOE, {"sliding_window": 4096}, "sliding_window = 4096"),
        (OLMOE, {"logits_scaling": 8.0}, "logits_scaling = 8.0"),
        (OLMOE, {"num_beams": 4}, "num_beams = 4"),
        (OLMOE, {"no_repeat_ngram_size": 3}, "no_repeat_ngram_size = 3"),
        (OLMOE, {"suppress_tokens": [7]}, r"suppress_tokens = \[7\]"),
        (OLMOE, {"forced_eos_token_id": 2}, "forced_eos_token_id = 2"),
        (OLMOE, {"attention_sinks": 4}, "attention_sinks = 4"),
    ],
)
def test_what_would_mean_something_is_refused_by_name(config, change, named):
    with pytest.raises(UnsupportedModelError, match=named):
        read_spec(config | change)


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        (QWEN3_30B, {"layer_types": ["full_attention"] * 48}),
        (OLMOE, {"layer_types": ["full_attention"] * 16}),
        (OLMOE, {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28}),
        (OLMOE, {"sliding_window": None, "use_sliding_window": True}),
        (MIXTRAL, {"max_window_layers": 28, "use_sliding_window": False}),
        (MIXTRAL, {"_comment": "merged by hand", "partial_rotary_factor": 1.0}),
        (MIXTRAL, {"num_experts": 8}),
    ],
)
def test_what_other_families_say_of_themselves_changes_nothing(config, extra):
    assert read_spec(config | extra) == read_spec(config)


@pytest.mark.parametrize("config", [QWEN3_30B, MIXTRAL, OLMOE])
def test_a_share_of_rotation_is_refused_where_heads_turn_as_a_whole(config):
    both = {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}
    for change in ({"partial_rotary_factor": 0.5}, both):
        with pytest.raises(UnsupportedModelError, match=r"partial_rotary_factor = 0.5 is not supported"):
            read_spec(config | change)


def test_null_is_not_taken_for_true():
    """As transformers: it refuses null or takes it for false."""
    config = PUBLISHED_MORE["LFM2-8B-A1B"]
    with pytest.raises(UnsupportedModelError, match="norm_topk_prob is None, not true or false"):
        read_spec(config | {"norm_topk_prob": None})
    without = {key: value for key, value in config.items() if key != "norm_topk_prob"}
    assert read_spec(without).layers[-1].feed_forward.router.renormalize


def test_two_names_of_one_thing_must_agree():
    with pytest.raises(UnsupportedModelError, match="num_local_experts is 8 and num_experts is 16"):
        read_spec(MIXTRAL | {"num_experts": 16})


def test_a_model_may_have_no_shared_expert():
    config = PUBLISHED_MORE["DeepSeek-V2-Lite"]
    layers = read_spec(config | {"n_shared_experts": 0}).layers
    assert layers[-1].feed_forward.shared is None


SMALL_GEMMA = {
    "model_type": "gemma4_text", "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 32,
    "layer_types": ["sliding_attention", "full_attention"], "hidden_size_per_layer_input": 0,
    "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32,
}  # fmt: skip


def test_an_empty_table_of_layers_says_that_gemma_s_heads_are_alike():
    layers = read_spec({**SMALL_GEMMA, "per_layer_config": {}}).layers
    assert [layer.mixer.head_dim for layer in layers] == [32, 32]
    assert read_spec(SMALL_GEMMA).layers[1].mixer.head_dim == 512, "the family's own where nothing is said"


def test_a_share_that_gemma_s_plain_rotation_passes_over_is_refused():
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = {**SMALL_GEMMA, "rope_parameters": {"sliding_attention": rope, "full_attention": rope}}
    layer = read_spec(config).layers[1]
    assert layer.rope.rotary_dim == layer.mixer.head_dim
    shared = {**rope, "partial_rotary_factor": 0.25}
    config["rope_parameters"] = {"sliding_attention": rope, "full_attention": shared}
    with pytest.raises(UnsupportedModelError, match="partial_rotary_factor of full_attention is not support"):
        read_spec(config)


def test_a_key_stands_in_one_table():
    assert not IGNORED & NEUTRAL.keys()


@pytest.mark.parametrize(
    ("scaling", "trained", "context"),
    [
        # As the cards of Qwen3 say to, with the longer and the shorter spelling of the trained context.
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 40960, 131072),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 32768, 131072),
        (
            {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
                "finetuned": True,
                "attn_factor": 1.0,
                "extrapolation_factor": 1,
            },
            32768,
            131072,
        ),
        # DeepSeek and gpt-oss name the stretched context.
        ({"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}, 131072, 131072),
        ({"rope_type": "yarn", "original_max_position_embeddings": 4096}, 16384, 16384),
        ({"type": "dynamic", "factor": 2.0}, 4096, 8192),
        ({"type": "linear", "factor": 4.0}, 4096, 16384),
        (None, 4096, 4096),
    ],
)
def test_scaling_reaches_the_context_it_promises(scaling, trained, context):
    spec = read_spec(QWEN3_30B | {"rope_scaling": scaling, "max_position_embeddings": trained})
    assert spec.max_context == context


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_a_stretch_of_mimo_says_how_much_of_a_head_rotates():
    """To transformers it is all where a stretch says nothing, and a third where nothing is stretched."""
    config = {
        "model_type": "mimo_v2_flash", "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
        "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2, "vocab_size": 320,
        "max_position_embeddings": 65536, "v_head_dim": 16, "sliding_window": 7,
        "layer_types": ["full_attention", "sliding_attention"],
    }  # fmt: skip
    stretched = {kind: {**YARN, "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
    with pytest.raises(UnsupportedModelError, match="has no partial_rotary_factor for sliding_attention"):
        read_spec(config | {"rope_parameters": stretched})
    shares = {kind: {**rope, "partial_rotary_factor": 0.5} for kind, rope in stretched.items()}
    layer = read_spec(config | {"rope_parameters": shares}).layers[0]
    assert layer.rope.rotary_dim == layer.mixer.head_dim // 2


def test_an_empty_table_says_that_nothing_is_stretched():
    """Of gpt-oss, which is stretched where nothing is said."""
    gpt = {k: v for k, v in PUBLISHED_MORE["gpt-oss-20b"].items() if k not in ("rope_scaling", "rope_theta")}
    stretched = {**YARN, "factor": 32.0, "original_max_position_embeddings": 4096, "rope_theta": 150000.0}
    stretched |= {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0}
    for said in ({}, {"rope_parameters": None}, {"rope_scaling": {}}):
        assert read_spec(gpt | said) == read_spec(gpt | {"rope_parameters": stretched})
    plain = read_spec(gpt | {"rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}})
    assert read_spec(gpt | {"rope_parameters": {}}) == plain


def test_bounds_of_yarn_that_are_null_are_not_rounded():
    """As transformers takes it."""
    specs = [read_spec(QWEN3_30B | {"rope_scaling": {**YARN, "truncate": value}}) for value in (None, False)]
    assert specs[0] == specs[1] != read_spec(QWEN3_30B | {"rope_scaling": YARN})


@pytest.mark.parametrize("scaling", [YARN, {**YARN, "rope_theta": 1e6}])
def test_yarn_of_a_card_counts_in_a_newer_file(scaling):
    """Newer files say ``rope_parameters``, with the base; cards still say to add ``rope_scaling``."""
    newer = {key: value for key, value in QWEN3_30B.items() if key not in ("rope_theta", "rope_scaling")}
    newer["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
    older = QWEN3_30B | {"rope_theta": 1e6, "rope_scaling": YARN}
    assert read_spec(newer | {"rope_scaling": scaling}) == read_spec(older)


@pytest.mark.parametrize(
    ("scaling", "newer", "message"),
    [
        (YARN, {**YARN, "factor": 2.0}, r"rope_scaling says 4\.0 of factor and rope_parameters 2\.0"),
        (
            YARN,
            {"rope_type": "linear", "factor": 4.0},
            "says 'yarn' of the rule and rope_parameters 'linear'",
        ),
        ({"type": "default"}, YARN, "says 'default' of the rule and rope_parameters 'yarn'"),
        ({**YARN, "rope_theta": 1e4}, {"rope_type": "default", "rope_theta": 1e6}, r"10000\.0 of rope_theta"),
    ],
)
def test_two_spellings_that_contradict_each_other_are_refused(scaling, newer, message):
    with pytest.raises(UnsupportedModelError, match=message):
        read_spec(QWEN3_30B | {"rope_scaling": scaling, "rope_parameters": newer})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads is 0, not a positive integer"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; no model has more than"),
        ({"num_experts": 10**9}, "num_experts is 1000000000; no model has more than"),
        ({"vocab_size": 10**40}, "vocab_size is a number of more than 30 digits"),
        ({"head_dim": 2**31}, "head_dim is 2147483648"),
        ({"head_dim": 31}, "31 of a head's 31 dimensions cannot be rotated in pairs"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf, not a number that can be run"),
        ({"rms_norm_eps": -1.0}, "epsilon -1 is not between 0 and 1"),
        ({"rope_theta": 0}, "rope_theta 0 .* gives no finite angles"),
        ({"rope_theta": float("nan")}, "rope_theta is nan"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn', not a table"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "gives no finite angles"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "attn_factor": 1.2}}, "yarn has no attn_factor"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 0}},
            "gives no finite angles",
        ),
        ({"partial_rotary_factor": 1.5}, "heads are rotated as a whole"),
        ({"mlp_only_layers": "all"}, "mlp_only_layers is 'all', not a list"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', not true or false"),
        ({"hidden_act": ["silu"]}, r"hidden_act = \['silu'\] is not supported"),
        ({"model_type": ["qwen3_moe"]}, r"model_type \['qwen3_moe'\] is not supported"),
        ({"num_experts_per_tok": 9}, "more experts per token than experts"),
    ],
)
def test_values_that_cannot_be_are_refused_at_once(change, message):
    with pytest.raises(UnsupportedModelError, match=message):
        read_spec(QWEN3_30B | change)


ALL_KEYS = sorted(
    {key for config in (QWEN3_CODER, QWEN15, OLMOE, *PUBLISHED_MORE.values()) for key in config}
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**9, 10**20]),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "type", "factor"]), st.sampled_from(["yarn", 0, 2.0])),
)


@settings(max_examples=400, deadline=None)
@given(
    config=st.sampled_from([*PUBLISHED.values(), *PUBLISHED_MORE.values()]),
    changes=st.dictionaries(st.sampled_from(ALL_KEYS), VALUES, max_size=4),
)
def test_any_value_gives_a_spec_or_one_line(config, changes):
    try:
        spec = read_spec(config | changes)
    except UnsupportedModelError as error:
        message = str(error)
    else:
        assert len(spec.layers) <= 4096
        return
    assert message.isprintable()
    assert len(message) < 2000
