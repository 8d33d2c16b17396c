"""Tokens per second before anything is loaded, from sizes and what this machine's memory and storage give.

A token reads every dense weight and its experts from memory once, and from storage those of its experts that
are not in memory. How many that are follows from the share of experts that fits: with caching by use, a cache
of a share s of the experts holds about s^0.45 of those that are asked for, on the models measured
(docs/log.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgemoe.models import ModelSpec
from edgemoe.store import Manifest

# A cache with a share s of all experts has s to this power of the experts that are asked for.
HIT_EXPONENT = 0.45
# The share of memory bandwidth that the kernels reach over a whole token.
MEMORY_EFFICIENCY = 0.6
# What a layer takes beside reading its weights: norms, routing, attention over a short text, waking threads.
LAYER_S = 40e-6
# The part of a read that neither bandwidth nor computing hides.
READ_S = 60e-6


@dataclass(frozen=True)
class SpeedForecast:
    """Decoding one text; sizes per token."""

    tokens_per_s: float
    hit_share: float
    computed_bytes: int
    read_bytes: int
    compute_s: float
    read_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def forecast_speed(
    spec: ModelSpec,
    manifest: Manifest,
    resident_share: float,
    memory_bytes_per_s: float,
    storage_bytes_per_s: float,
) -> SpeedForecast:
    """How fast a store would decode with this share of its experts in memory."""
    embedding = manifest.dense["embed.weight"].num_bytes
    dense = sum(entry.num_bytes for entry in manifest.dense.values())
    if not spec.has_tied_head:
        dense -= embedding  # one row of it is read
    active_bytes, num_active = 0.0, 0
    sizes: dict[int, list[int]] = {}
    for (layer, _), entry in manifest.experts.items():
        sizes.setdefault(layer, []).append(entry.num_bytes)
    for layer in spec.decoder_moe_layers:
        top_k = spec.moe(layer).router.top_k
        active_bytes += top_k * sum(sizes[layer]) / len(sizes[layer])
        num_active += top_k
    hit_share = min(1.0, resident_share) ** HIT_EXPONENT
    missed_bytes = active_bytes * (1 - hit_share)
    compute_s = (dense + active_bytes) / (memory_bytes_per_s * MEMORY_EFFICIENCY)
    compute_s += LAYER_S * len(spec.decoder_layers)
    read_s = missed_bytes / storage_bytes_per_s + num_active * (1 - hit_share) * READ_S
    return SpeedForecast(
        tokens_per_s=1 / (compute_s + read_s),
        hit_share=hit_share,
        computed_bytes=int(dense + active_bytes),
        read_bytes=int(missed_bytes),
        compute_s=compute_s,
        read_s=read_s,
    )
