"""Random values of the configuration keys that families share; see random_configs.py."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from helpers.tiny_grouped import VISION

Fields = dict[str, Any]
# Where a class of transformers has a field for it, and those that the engine has no kernel for.
ACTIVATIONS = ("silu", "silu", "swish", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "relu2")
MORE_ACTIVATIONS = ("gelu_python", "gelu_accurate", "gelu_fast", "gelu_python_tanh")
OTHER_ACTIVATIONS = ("mish", "quick_gelu", "sigmoid", "tanh", "relu6", "leaky_relu")
LENGTHS = (30, 52)  # of the text that is compared, in tokens


@dataclass
class Draw:
    """Random choices for one configuration, and which of the chosen values the engine may refuse."""

    rng: random.Random
    unsupported: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.length = self.rng.randint(*LENGTHS)
        self.width = self.of(32, 64, 64, 96, 160)
        if self.flag(0.25):  # which packed rows are filled up for
            self.width = self.of(40, 48, 56, 72, 100)
        self.num_layers = self.of(1, 2, 2, 3, 3, 4, 5, 7)

    def of(self, *values: Any) -> Any:
        return self.rng.choice(values)

    def flag(self, share: float = 0.5) -> bool:
        return self.rng.random() < share

    def size(self, low: int, high: int, step: int = 1) -> int:
        return self.rng.randrange(low, high + 1, step)

    def number(self, low: float, high: float) -> float:
        return round(self.rng.uniform(low, high), self.of(1, 2, 3, 6)) or low

    def maybe(self, fields: Fields, share: float = 0.5) -> Fields:
        """The fields, or none of them: then the defaults of the class count."""
        return fields if self.flag(share) else {}

    def window(self) -> int:
        """Often shorter than the text, now and then one token or longer than any text."""
        return self.of(1, 2, 3, 5, 8, 16, 17, self.length - 1, self.length, 4096)

    def kinds(self, *words: str, count: int | None = None) -> list[str]:
        return [self.of(*words) for _ in range(count or self.num_layers)]

    def sparse_kinds(self) -> list[str]:
        """Which layers are dense; one at least is not."""
        kinds = self.kinds("dense", "sparse", "sparse")
        kinds[self.rng.randrange(len(kinds))] = "sparse"
        return kinds

    def activation(self, key: str = "hidden_act") -> Fields:
        kind = self.rng.random()
        if kind < 0.05:
            self.unsupported.add(key)
            return {key: self.of(*OTHER_ACTIVATIONS)}
        return {key: self.of(*(MORE_ACTIVATIONS if kind < 0.12 else ACTIVATIONS))}


def common(draw: Draw) -> Fields:
    """What every model has."""
    return {
        "vocab_size": draw.size(64, 300),
        "hidden_size": draw.width,
        "num_hidden_layers": draw.num_layers,
        "rms_norm_eps": draw.of(1e-6, 1e-5, 1e-3),
        "tie_word_embeddings": draw.flag(0.3),
        "max_position_embeddings": draw.of(64, 77, 128, 4096),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }


def heads(draw: Draw, *, own_dim: bool = True) -> Fields:
    """Heads of queries and of keys; of a size of their own, or of the width over their number."""
    kv_heads = draw.of(1, 1, 2, 3, 4, 5)
    num_heads = kv_heads * draw.of(1, 2, 3, 4)
    if (own_dim and draw.flag(0.75)) or draw.width % (2 * num_heads):
        return {
            "num_attention_heads": num_heads,
            "num_key_value_heads": kv_heads,
            "head_dim": draw.of(draw.size(4, 40, 2), 64, 80) if own_dim else 16,
        }
    return {"num_attention_heads": num_heads, "num_key_value_heads": kv_heads}


def dividing_heads(draw: Draw) -> Fields:
    """Heads whose number divides the width, without a size of their own."""
    num_heads = draw.of(*(n for n in (1, 2, 4, 8) if draw.width % (2 * n) == 0))
    return {"num_attention_heads": num_heads, "num_key_value_heads": draw.of(*_divisors(num_heads))}


def experts(draw: Draw, count: str, chosen: str = "num_experts_per_tok", least: int = 2) -> Fields:
    total = draw.of(draw.size(least, 14), draw.size(15, 40))
    return {count: total, chosen: draw.size(1, min(total, draw.of(4, 10)))}


def widths(draw: Draw) -> Fields:
    """Of dense networks and of experts."""
    return {"intermediate_size": draw.size(5, 100), "moe_intermediate_size": draw.size(5, 72)}


def grouped(draw: Draw, count: str = "n_routed_experts", *, has_shared: bool = True) -> Fields:
    """DeepSeek-V3's router: groups of two experts and more."""
    groups = draw.of(1, 1, 2, 3, 4)
    each = draw.of(draw.size(2, 5), draw.size(6, 12))
    kept = draw.size(1, groups)
    found = {
        count: groups * each,
        "num_experts_per_tok": draw.size(1, min(6, kept * each)),
        "n_group": groups,
        "topk_group": kept,
        "norm_topk_prob": draw.flag(),
        "routed_scaling_factor": draw.of(1.0, draw.number(0.3, 3.0)),
    }
    return found | ({"n_shared_experts": draw.of(1, 1, 2, 3)} if has_shared else {})


def rope(
    draw: Draw,
    head_dim: int,
    kinds: Sequence[str] = ("default", "linear", "dynamic", "llama3", "yarn", "longrope"),
    share: float | None = None,
) -> Fields:
    """Rotation of ``head_dim`` entries, ``share`` of them where that is not all."""
    kind = draw.of("default", *kinds)
    found: Fields = {"rope_type": kind, "rope_theta": draw.of(100.0, 5000.0, 10_000, 1e6)}
    if share is not None:
        found["partial_rotary_factor"] = share
    dim = int(head_dim * (share or 1))
    original = draw.of(16, 32, 64)
    if kind in ("linear", "dynamic"):
        found["factor"] = draw.of(1.0, 2.0, draw.number(1.1, 8.0))
        if kind == "dynamic" and dim <= 2:
            found["rope_type"] = "linear"
    elif kind == "llama3":
        low = draw.number(0.5, 2.0)
        found |= {
            "factor": draw.number(1.0, 16.0),
            "low_freq_factor": low,
            "high_freq_factor": low + draw.number(0.5, 4.0),
            "original_max_position_embeddings": original,
        }
    elif kind == "yarn":
        found |= {"factor": draw.number(1.0, 16.0), "original_max_position_embeddings": original}
        found |= draw.maybe({"attention_factor": draw.number(0.5, 1.5)}, 0.3)
        found |= draw.maybe({"beta_fast": draw.number(8, 64), "beta_slow": draw.number(0.5, 4)})
        found |= draw.maybe({"mscale": draw.number(0.5, 1.5), "mscale_all_dim": draw.number(0.5, 1.5)}, 0.4)
        found |= draw.maybe({"truncate": draw.flag()}, 0.4)
    elif kind == "longrope":
        pairs = (dim + 1) // 2
        found |= {
            "original_max_position_embeddings": draw.of(draw.length, 64),
            "short_factor": [draw.number(0.8, 3.0) for _ in range(pairs)],
            "long_factor": [draw.number(1.0, 9.0) for _ in range(pairs)],
        }
        found |= draw.maybe({"factor": draw.number(0.5, 8.0)})
        found |= draw.maybe({"attention_factor": draw.number(0.5, 1.5)}, 0.3)
    return found


def beside_vision(fields: Fields) -> Fields:
    """The configuration of a model of text and images with this text part."""
    is_tied = fields["tie_word_embeddings"]
    vision = {**VISION["vision_config"], "out_hidden_size": fields["hidden_size"]}
    return {**VISION, "vision_config": vision, "tie_word_embeddings": is_tied, "text_config": fields}


def head_dim_of(fields: Fields) -> int:
    return int(fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"])


def rotated(draw: Draw, fields: Fields, *, partial: bool = False, **more: Any) -> Fields:
    """The fields with a rotation of their heads."""
    fields = {key: value for key, value in fields.items() if key != "rope_parameters"}
    dim = head_dim_of(fields)
    share = draw.of(0.25, 0.5, 0.75, 1.0) if partial else None
    if share is not None and int(dim * share) < 4:
        share = 1.0
    if share is None and draw.flag(0.08):
        return fields  # rotated as the class does where nothing is said
    parameters = rope(draw, dim, share=share, **more)
    # A text that grows beyond its first context; in steps transformers forgets a window of one token.
    if parameters["rope_type"] == "dynamic" and fields.get("sliding_window") != 1 and draw.flag():
        parameters["factor"] = draw.number(3.0, 8.0)
        return {**fields, "rope_parameters": parameters, "max_position_embeddings": 24}
    context = max(64, fields["max_position_embeddings"])  # drawn again, perhaps
    return {**fields, "rope_parameters": parameters, "max_position_embeddings": context}


def latent(draw: Draw, *, has_query_rank: bool = True) -> Fields:
    """Latent attention."""
    num_heads = draw.of(1, 2, 3, 4)
    found = {
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads,
        "kv_lora_rank": draw.of(32, 64, draw.size(4, 64)),
        "qk_nope_head_dim": draw.size(3, 40),
        "qk_rope_head_dim": draw.size(4, 16, 2),
        "v_head_dim": draw.size(3, 48),
        "attention_bias": draw.flag(0.3),
    }
    return found | ({"q_lora_rank": draw.of(None, draw.size(5, 64))} if has_query_rank else {})


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
