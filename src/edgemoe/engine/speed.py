"""Tokens per second before anything is loaded, from sizes and what this machine's cores and storage give.

A token is multiplied with every dense weight and with its experts once, and those of its experts that are not
in memory are read from storage. How many those are follows from the share of experts that fits. Each constant
was measured; docs/benchmarks.md compares the forecasts with what stores did.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgemoe.models import ModelSpec
from edgemoe.store import Manifest

# With a share s of the experts in memory, (1 - s) to this power of the bytes asked for are read. LRU of 24 of
# OLMoE's 64 experts hits 68 %; what is read ahead in vain about makes up for what a better policy saves.
MISS_EXPONENT = 2.5
# Of a token's computing, the products with weights; the rest are attention, norms, routing and sampling. 0.9
# on an idle machine, 0.7 beside other programs, for which threads wait at the end of every product.
PRODUCT_SHARE = 0.8
# Of a layer, beside its weights: what small models take whatever their bytes.
LAYER_S = 40e-6
# Of reading, what computing does not hide: 0.4 to 0.9 of it where much is read.
WAITED_SHARE = 0.7
# Of a read, what neither bandwidth nor computing hides, and what is done around it.
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
    product_bytes_per_s: float,
    storage_bytes_per_s: float,
) -> SpeedForecast:
    """How fast a store would decode with this share of its experts in memory.

    ``product_bytes_per_s``: packed weights that one token is multiplied with (``measure_products``).
    """
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
    missed_share = missed_of(resident_share)
    missed_bytes = active_bytes * missed_share
    compute_s = seconds_to_compute(dense + active_bytes, len(spec.decoder_layers), product_bytes_per_s)
    read_s = seconds_to_read(missed_bytes, num_active * missed_share, storage_bytes_per_s)
    return SpeedForecast(
        tokens_per_s=1 / (compute_s + read_s),
        hit_share=1 - missed_share,
        computed_bytes=int(dense + active_bytes),
        read_bytes=int(missed_bytes),
        compute_s=compute_s,
        read_s=read_s,
    )


def missed_of(resident_share: float) -> float:
    """Of the experts asked for, by bytes, the share that is read, with this share of all in memory."""
    return float((1 - min(1.0, resident_share)) ** MISS_EXPONENT)


def seconds_to_compute(num_bytes: float, num_layers: int, product_bytes_per_s: float) -> float:
    """Of a token that is multiplied with so many bytes of weights."""
    return num_bytes / (product_bytes_per_s * PRODUCT_SHARE) + LAYER_S * num_layers


def seconds_to_read(num_bytes: float, num_reads: float, storage_bytes_per_s: float) -> float:
    """Of a token, what is waited for storage beside computing."""
    return WAITED_SHARE * num_bytes / storage_bytes_per_s + READ_S * num_reads
