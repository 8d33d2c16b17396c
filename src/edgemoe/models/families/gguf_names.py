"""What GGUF files of different architectures have in common: keys of the metadata and tensor names.

Keys stand without the architecture's name before them. Names and meanings are llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemoe.models.families.names import (
    PROJECTIONS,
    Name,
    Names,
    NameTable,
    first_half,
    part_of_qkv,
    second_half,
)
from edgemoe.models.mixers.latent import LatentSpec
from edgemoe.models.spec import AttentionSpec, ModelSpec
from edgemoe.source_ref import FloatArray

# What it takes more than renaming: changes the configuration, given the keys of the architecture and the
# names of the file's tensors.
Finish = Callable[[dict[str, Any], dict[str, Any], Collection[str]], None]
# The way back: the keys that ``finish`` reads, and others that no single fact of a configuration gives. None
# for one that is not to be there.
Says = Callable[[ModelSpec], dict[str, Any]]
# Tensors of a file that are no weights, by their names.
Adds = Callable[[ModelSpec], dict[str, FloatArray]]


@dataclass(frozen=True)
class GgufFamily:
    """How GGUF files hold a family: ``keys`` from theirs to Hugging Face's, and what they leave unsaid.

    A key that stands neither in ``keys`` nor in ``checked`` (with the values that are run), nor repeats
    another, is refused. ``is_ours`` tells families of one architecture apart. ``unheeded``: keys of ``keys``
    that llama.cpp passes over: it runs a model right only where they say what is implied without them.
    ``says`` and ``adds`` are for writing files; the former refuses what llama.cpp would not run.
    """

    architecture: str
    keys: Mapping[str, str]
    names: NameTable
    implied: Mapping[str, Any] = field(default_factory=dict)
    checked: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    per_layer: tuple[str, ...] = ()  # keys that may have a value for each layer
    finish: Finish | None = None
    is_ours: Callable[[dict[str, Any]], bool] | None = None
    unheeded: tuple[str, ...] = ()
    says: Says | None = None
    adds: Adds | None = None


KEYS: dict[str, str] = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}
# What DeepSeek-V3's router and its followers add, and the widths of their experts.
GROUPED_KEYS: dict[str, str] = {
    **{key: name for key, name in KEYS.items() if key != "expert_count"},
    "expert_count": "n_routed_experts",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
}
SIGMOID = {"expert_gating_func": (2,)}
TOP: dict[str, Names] = {
    "embed.weight": ("token_embd.weight",),
    "norm.weight": ("output_norm.weight",),
    "head.weight": ("output.weight",),
}
ATTENTION: dict[str, Names] = {
    **{
        f"attention.{p}.{kind}": (f"attn_{p}.{kind}", Name(f"attn_qkv.{kind}", part_of_qkv(p)))
        for p in "qkv"
        for kind in ("weight", "bias")
    },
    **{f"attention.o.{kind}": (f"attn_output.{kind}",) for kind in ("weight", "bias")},
    "attention.q_norm.weight": ("attn_q_norm.weight",),
    "attention.k_norm.weight": ("attn_k_norm.weight",),
    "attention_norm.weight": ("attn_norm.weight",),
    "ffn_norm.weight": ("ffn_norm.weight",),
}
FEED_FORWARD: dict[str, Names] = {
    "router.weight": ("ffn_gate_inp.weight",),
    "router.choice_bias": ("exp_probs_b.bias", "exp_probs_b"),
    "shared_gate.weight": ("ffn_gate_inp_shexp.weight",),
    **{f"shared.{p}.weight": (f"ffn_{p}_shexp.weight",) for p in PROJECTIONS},
    **{f"mlp.{p}.weight": (f"ffn_{p}.weight",) for p in PROJECTIONS},
}
EXPERTS: dict[str, Names] = {
    projection: (
        f"ffn_{projection}_exps.weight",
        *((Name("ffn_gate_up_exps.weight", half),) if half else ()),
        # Files of early 2024 have one tensor an expert.
        f"ffn_{projection}.{{e}}.weight",
    )
    for projection, half in (("gate", first_half), ("up", second_half), ("down", None))
}

# Divisors of frequencies, which stand in the configuration.
_ROTATION = {r"rope_(freqs|factors_short|factors_long)\.weight": ""}


def gguf_table(changes: Mapping[str, Names] | None = None, extra_layers: str | None = None) -> NameTable:
    """The usual names, with those of a family that differ, in canonical form after "layers.{l}."."""
    layers = {**ATTENTION, **FEED_FORWARD, **(changes or {})}
    return NameTable(("",), "blk.{l}.", TOP, layers, EXPERTS, _ROTATION, extra_layers)


def key_heads(spec: ModelSpec) -> list[int]:
    """Heads of keys in every layer; a latent is one for all, and other mixers have none."""
    counts = []
    for layer in spec.layers:
        match layer.mixer:
            case AttentionSpec() as attention:
                counts.append(attention.num_kv_heads)
            case LatentSpec():
                counts.append(1)
            case _:
                counts.append(0)
    return counts
