"""Configuration fields of latent attention, and what GGUF files say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.mixers.latent import LatentSpec
from edgemoe.models.rope_config import read_rope
from edgemoe.models.spec import RopeSpec


def read_latent(
    reader: ConfigReader, *, rotates_pairs: bool | None = None, default_theta: float = 10000.0
) -> LatentSpec:
    """Latent attention; ``rotates_pairs`` where the family says so and no key does."""
    num_heads = reader.require_size("num_attention_heads")
    plain_dim = reader.require_size("qk_nope_head_dim")
    rotary_dim = reader.require_size("qk_rope_head_dim")
    reader.refuse("qk_head_dim", (plain_dim + rotary_dim,), "it is the sum of the two parts of a head")
    rope = read_rope(reader, rotary_dim, default_theta)
    if rotates_pairs is None:
        rotates_pairs = reader.flag("rope_interleave", True)
    # The latent is shared by all heads: how many "key heads" a file names means nothing.
    reader.optional("num_key_value_heads", None)
    return LatentSpec(
        num_heads,
        # Null says that queries are made by one matrix.
        reader.size("q_lora_rank", 0, at_least=0),
        reader.require_size("kv_lora_rank"),
        plain_dim,
        rotary_dim,
        reader.require_size("v_head_dim"),
        (plain_dim + rotary_dim) ** -0.5 * _stretch(rope) ** 2,
        rope,
        reader.flag("attention_bias", False),
        rotates_pairs,
    )


def _stretch(rope: RopeSpec) -> float:
    """YaRN's factor of queries and of keys, which latent attention applies to scores."""
    factor, share = rope.scaling.get("factor", 1.0), rope.scaling.get("mscale_all_dim", 0.0)
    return 1.0 if factor <= 1 or not share else 0.1 * share * math.log(factor) + 1.0


def finish_latent(own: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Sizes of heads, which GGUF files give as sums, and YaRN's factor, which they give by a tenth."""
    rotary_dim = int(own["rope.dimension_count"])
    key_dim = own.get("attention.key_length_mla") or own["attention.key_length"]
    config["qk_rope_head_dim"] = rotary_dim
    config["qk_nope_head_dim"] = int(key_dim) - rotary_dim
    config["v_head_dim"] = int(own.get("attention.value_length_mla") or own["attention.value_length"])
    config.setdefault("q_lora_rank", None)
    scaling, multiplier = config.get("rope_scaling"), own.get("rope.scaling.yarn_log_multiplier")
    if scaling and multiplier:
        # Both are the same in every model of the architecture, so that angles have no factor.
        scaling["mscale"] = scaling["mscale_all_dim"] = round(float(multiplier) * 10, 6)


LATENT_GGUF_KEYS = (
    *("attention.key_length", "attention.value_length", "attention.key_length_mla", "rope.dimension_count"),
    *("attention.value_length_mla", "rope.scaling.yarn_log_multiplier", "attention.head_count_kv"),
)
