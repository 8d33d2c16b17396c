"""Keys of config.json that mean nothing for a forward pass, as published checkpoints carry them.

A table, not code: a key is ignored whatever its value, ignored at the values that change nothing, or read
elsewhere. A family that does give one of them a meaning reads it, and then this table is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Bookkeeping, training, other programs' settings, and token ids (which the tokenizer reads).
IGNORED = frozenset(
    (
        # what the file is and who wrote it
        *("architectures", "model_type", "transformers_version", "_name_or_path", "name_or_path"),
        *("_commit_hash", "_from_model_config", "auto_map", "model_name", "base_model", "license"),
        *("language", "is_composition", "transformers.js_config", "transformers_weights"),
        # how the weights are held while they run
        *("dtype", "torch_dtype", "use_cache", "torchscript", "use_bfloat16", "onnx_dtype"),
        *("_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal"),
        *("attn_implementation", "attention_implementation", "use_flash_attn", "use_flash_attention"),
        *("use_flash_attention_2", "_flash_attn_2_enabled", "experts_implementation"),
        *("_experts_implementation", "_experts_implementation_internal", "_moe_implementation"),
        *("moe_implementation", "use_kernels", "use_liger_kernel", "chunk_size_feed_forward"),
        *("base_model_tp_plan", "base_model_pp_plan", "base_model_ep_plan", "tp_plan", "ep_plan", "ep_size"),
        *("pretraining_tp", "keys_to_ignore_at_inference", "cache_implementation"),
        # what a call gives back
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "output_past"),
        *("output_router_logits", "return_dict", "return_dict_in_generate", "return_legacy_cache"),
        # windows, where use_sliding_window says of them; families that have windows read it
        "max_window_layers",
        # training
        *("initializer_range", "attention_dropout", "hidden_dropout", "router_aux_loss_coef"),
        *("router_jitter_noise", "router_z_loss_coef", "aux_loss_alpha", "seq_aux", "z_loss_coeff"),
        *("gradient_checkpointing", "use_gradient_checkpointing", "attn_pdrop", "resid_pdrop", "embd_pdrop"),
        *("embedding_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "attn_dropout"),
        *("dropout", "classifier_dropout", "summary_first_dropout", "layerdrop", "neftune_noise_alpha"),
        *("unsloth_fixed", "unsloth_version", "unsloth_training", "axolotl_config", "training_args"),
        *("initializer_factor", "init_std", "tf_legacy_loss", "ignore_index"),
        # heads of other tasks
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
        # tokens
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "cls_token_id"),
        *("mask_token_id", "decoder_start_token_id", "bos_token", "eos_token", "pad_token", "unk_token"),
        *("tokenizer_class", "tokenizer_model_max_length", "tokenizer_padding_side", "model_max_length"),
        # generating: lengths that a caller gives, and settings of beams, which need more than one
        *("max_length", "max_new_tokens", "early_stopping", "remove_invalid_values", "is_decoder"),
    )
)

# Sampling settings that folders without generation_config.json have here; the checkpoint passes them on.
SAMPLING = frozenset(("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"))

# Keys whose null is a value that means something: transformers takes it for false.
MEANT_BY_NULL = ("is_causal",)

# Values at which a key changes nothing. Elsewhere it would, so any other value is refused by name. Null,
# false and empty values are tried against these as well, and ignored for keys that stand nowhere.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # generating, by the defaults of transformers 2 to 5
    "min_length": (0,),
    "min_new_tokens": (0,),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "diversity_penalty": (0,),
    "length_penalty": (1,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "renormalize_logits": (True, False),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "forced_decoder_ids": ([],),
    "sequence_bias": ({}, []),
    "exponential_decay_length_penalty": (),
    "prefix": ("",),
    # whether a token sees only those before it
    "is_causal": (True,),
    # layers that a plain decoder has not
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "qkv_bias": (False,),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_bias": (False,),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "use_parallel_residual": (False,),
    "use_sliding_window": (False,),
    "sliding_window": (0,),
    "shared_expert_intermediate_size": (0,),
    "n_shared_experts": (0,),
    "num_shared_experts": (0,),
    "first_k_dense_replace": (0,),
    "num_nextn_predict_layers": (0,),
    "moe_layer_freq": (1,),
    "n_group": (1,),
    "topk_group": (1,),
    "topk_method": ("greedy",),
    "routed_scaling_factor": (1,),
    # factors
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "final_logit_softcapping": (0,),
    "attn_logit_softcapping": (0,),
    "router_logit_softcapping": (0,),
}

# Most of something that one model can have, far beyond any that exists: what follows is counted in memory
# before the weights are looked at.
MOST: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers"), 4096),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 1 << 16),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "head_dim", "d_kv"), 1 << 16),
    **dict.fromkeys(
        ("hidden_size", "d_model", "intermediate_size", "moe_intermediate_size", "d_ff"), 1 << 24
    ),
}
MOST_OF_ANYTHING = 1 << 31
