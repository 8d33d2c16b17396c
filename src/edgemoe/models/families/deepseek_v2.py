"""DeepSeek-V2 and V2-Lite: latent attention; softmax routing whose weights are not renormalised."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.family import Family
from edgemoe.models.families.fields import read_is_dense, read_mlp, read_model, read_moe
from edgemoe.models.families.gguf_names import GROUPED_KEYS, GgufFamily, gguf_table
from edgemoe.models.families.latent_fields import LATENT_GGUF_KEYS, finish_latent, read_latent
from edgemoe.models.families.latent_names import GGUF_LATENT, LATENT
from edgemoe.models.families.names import MLP, SHARED, Names, hugging_face
from edgemoe.models.spec import LayerSpec, ModelSpec, RouterSpec

_GREEDY, _GROUPED = "greedy", "group_limited_greedy"


def read_deepseek_v2(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``deepseek_v2`` configuration."""
    reader.refuse("moe_layer_freq", (1,), "experts are in every layer after the first dense ones")
    has_bias = reader.flag("mlp_bias", False)  # of all networks but the chosen experts
    num_shared = reader.size("n_shared_experts", 2, at_least=0)
    moe = read_moe(reader, _read_router(reader), num_shared, has_shared_bias=has_bias)
    dense = read_mlp(reader, has_bias=has_bias)
    is_dense = read_is_dense(reader, reader.size("first_k_dense_replace", 0, at_least=0))
    mixer = read_latent(reader, rotates_pairs=True)
    layers = tuple(LayerSpec(mixer, dense if is_mlp else moe) for is_mlp in is_dense)
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0)


def _read_router(reader: ConfigReader) -> RouterSpec:
    """Groups, where they limit the choice, are kept by their best expert."""
    reader.refuse("scoring_func", ("softmax",), "the family scores experts by the softmax")
    reader.refuse("topk_method", (_GREEDY, _GROUPED), "the family chooses greedily, or among groups")
    is_grouped = reader.optional("topk_method", _GREEDY) == _GROUPED
    groups, kept = reader.size("n_group", 1), reader.size("topk_group", 1)
    # Read by transformers and used by nothing.
    reader.optional("norm_topk_prob", None)
    return RouterSpec(
        reader.require_size("n_routed_experts", "num_experts"),
        reader.require_size("num_experts_per_tok"),
        "softmax",
        num_groups=groups if is_grouped else 1,
        kept_groups=kept if is_grouped else 1,
        groups_by_highest=True,
        scale=reader.number("routed_scaling_factor", 1.0),
    )


def _finish(own: dict[str, Any], config: dict[str, Any], names: Collection[str]) -> None:
    """Files with groups are of models that choose among them."""
    finish_latent(own, config)
    config["topk_method"] = _GROUPED if config.get("n_group", 1) > 1 else _GREEDY


def is_sigmoid(own: dict[str, Any]) -> bool:
    """Whether a file is of a model with DeepSeek-V3's router.

    Files of GLM-4.7-Flash do not say it; llama.cpp tells them by their layers and their vocabulary.
    """
    function = own.get("expert_gating_func", 0)
    is_flash = own.get("block_count") in (47, 48) and own.get("vocab_size") == 154880
    return function == 2 or (function == 0 and is_flash)


def latent_gguf_keys() -> dict[str, str]:
    """Keys of the architecture that all of its families share."""
    keys = {key: name for key, name in GROUPED_KEYS.items() if key not in LATENT_GGUF_KEYS}
    ranks = {"attention.q_lora_rank": "q_lora_rank", "attention.kv_lora_rank": "kv_lora_rank"}
    return {**keys, **ranks}


LATENT_LAYERS: dict[str, Names] = {
    **LATENT,
    **MLP,
    **SHARED,
    "router.weight": ("mlp.gate.weight",),
    "router.choice_bias": ("mlp.gate.e_score_correction_bias",),
}
FAMILY = Family(
    "DeepSeek-V2",
    ("deepseek_v2",),
    read_deepseek_v2,
    hugging_face(LATENT_LAYERS),
    GgufFamily(
        "deepseek2",
        {key: name for key, name in latent_gguf_keys().items() if key != "expert_weights_norm"},
        gguf_table(GGUF_LATENT),
        # llama.cpp makes weights sum to 1 where files say so, as those of Mistral Large 3 do.
        checked={"expert_gating_func": (0, 1), "expert_weights_norm": (False,)},
        ignored=(*LATENT_GGUF_KEYS, "expert_shared_feed_forward_length"),
        finish=_finish,
        is_ours=lambda own: not is_sigmoid(own),
    ),
    defaults={
        "vocab_size": 102400,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "n_routed_experts": 64,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "moe_intermediate_size": 1407,
    },
    unused=("head_dim", "rope_interleave"),
)
