"""What GGUF metadata leave unsaid: llama.cpp's defaults, and sizes that the tensors tell."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.families import GgufFamily
from edgemoe.source_ref import Shape

_ROPE_BASE = 10000.0
# Of these 0 says that there is none, as of the scores' scale.
_FACTORS = ("expert_weights_scale", "embedding_scale", "residual_scale")
# Of divisors of the frequencies of pairs: for texts of any length, and of those within the first context.
ROTATION_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight")
# The last axis of these is a width that a key tells too; in old files only the tensor does.
_WIDTHS = {
    "expert_feed_forward_length": re.compile(r"blk\.\d+\.ffn_down(_exps|\.\d+)\.weight"),
    "expert_shared_feed_forward_length": re.compile(r"blk\.\d+\.ffn_down_shexp\.weight"),
    "feed_forward_length": re.compile(r"blk\.\d+\.ffn_down(|_exps|\.\d+)\.weight"),
}
_SCALING = {
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}


def add_defaults(
    gguf: GgufFamily, own: Mapping[str, Any], config: dict[str, Any], shapes: Mapping[str, Shape]
) -> None:
    """Set what no key says: base of the rotation, sizes of heads, factors, widths of networks.

    ``own`` are the keys of the architecture, ``config`` is in Hugging Face's keys.
    """
    if "rope.freq_base" in gguf.keys:
        config.setdefault(gguf.keys["rope.freq_base"], _ROPE_BASE)
    num_heads = config.get("num_attention_heads")
    if "attention.head_count_kv" not in gguf.per_layer and "attention.head_count_kv" in gguf.keys:
        config.setdefault("num_key_value_heads", num_heads)
    if gguf.keys.get("attention.key_length") == "head_dim" and isinstance(num_heads, int) and num_heads:
        width = config.get("hidden_size")
        config.setdefault("head_dim", width // num_heads if isinstance(width, int) else width)
    head_dim = config.get("head_dim")
    if (
        "attention.scale" in gguf.keys
        and not own.get("attention.scale")
        and isinstance(head_dim, int)
        and head_dim
    ):
        config[gguf.keys["attention.scale"]] = head_dim**-0.5
    for key in _FACTORS:
        if key in gguf.keys and not own.get(key):
            config[gguf.keys[key]] = 1.0
    for key, pattern in _WIDTHS.items():
        if key in gguf.keys and own.get(key) is None:
            found = next((shape[-1] for name, shape in shapes.items() if pattern.fullmatch(name)), None)
            if found is not None:
                config[gguf.keys[key]] = found


def read_divisors(own: dict[str, Any], divisors: Mapping[str, list[float]]) -> dict[str, Any]:
    """As ``read_scaling``, of a rotation whose divisors stand in tensors; takes its keys out of ``own``.

    Llama 3's rule makes one list for texts of any length, Phi-3's another for those within the first context.
    """
    of_any, of_first = (divisors.get(name) for name in ROTATION_TENSORS)
    found = of_any or of_first
    if found is None:
        return {}
    keys = ("type", "factor", "attn_factor", "original_context_length")
    kind, _, factor, first = (own.pop(f"rope.scaling.{key}", None) for key in keys)
    if kind not in (None, "none", "longrope"):
        raise UnsupportedModelError(
            f"GGUF key rope.scaling.type is {kind!r}, and tensors have divisors of angles"
        )
    return {
        "rope_type": "longrope",
        "short_factor": found,
        "attention_factor": factor or 1.0,
        "original_max_position_embeddings": own.get("context_length")
        if of_any
        else first or own.get("context_length"),
    }


def read_scaling(own: dict[str, Any]) -> dict[str, Any]:
    """How the rotation is stretched, in Hugging Face's keys; takes its keys out of ``own``.

    A factor without a kind is linear, also under the name that files of 2023 give it.
    """
    found = {new: own.pop(f"rope.scaling.{old}", None) for old, new in _SCALING.items()}
    old_factor = own.pop("rope.scale_linear", None)
    if found["factor"] is None:
        found["factor"] = old_factor
    kind = own.pop("rope.scaling.type", "none" if found["factor"] is None else "linear")
    if kind == "none" or (kind in ("linear", "yarn") and found["factor"] in (None, 0.0, 1.0)):
        return {}
    if kind == "yarn" and found["original_max_position_embeddings"] is None:
        found["original_max_position_embeddings"] = own.get("context_length")
    if kind != "yarn":
        found = {"factor": found["factor"]}
    elif isinstance(found["factor"], float | int) and found["factor"] > 1:
        found["attention_factor"] = _attention_factor(own, found["factor"])
    return {"rope_type": kind, **{key: value for key, value in found.items() if value is not None}}


def _attention_factor(own: dict[str, Any], stretch: float) -> float | None:
    """What YaRN multiplies angles' cosines by, where it is not the usual; takes its keys out of ``own``.

    llama.cpp multiplies the usual by ``attn_factor``. ``yarn_attn_factor`` is the configuration's own number,
    which it passes over: it stays to be refused where it is not the usual.
    """
    usual = 0.1 * math.log(stretch) + 1.0
    said = own.get("rope.scaling.yarn_attn_factor")
    if isinstance(said, float | int) and math.isclose(said, usual, rel_tol=1e-5):
        del own["rope.scaling.yarn_attn_factor"]
    times = own.get("rope.scaling.attn_factor")
    # With a multiplier of its own the usual is another.
    if not isinstance(times, float | int) or times in (0, 1) or own.get("rope.scaling.yarn_log_multiplier"):
        return None
    del own["rope.scaling.attn_factor"]
    return usual * times
