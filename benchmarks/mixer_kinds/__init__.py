"""Token mixers at the shapes of known models: what each engine runs for one, between its projections.

A file for each sort: attention, delta nets, and what else is recurrent.
"""

from __future__ import annotations

from mixer_kinds.attention import AttentionKind
from mixer_kinds.delta import GatedDeltaKind, KimiDeltaKind
from mixer_kinds.kind import Kind
from mixer_kinds.recurrent import Mamba2Kind, ShortConvKind

__all__ = ["KINDS", "Kind"]

KINDS: tuple[Kind, ...] = (
    AttentionKind("full attention", "Qwen3.6-35B-A3B", 10, 16, 2, 256),
    AttentionKind("full attention", "LFM2-8B-A1B", 6, 32, 8, 64),
    AttentionKind("full attention, sinks", "gpt-oss-20b", 12, 64, 8, 64, has_sinks=True),
    AttentionKind("window of 128, sinks", "gpt-oss-20b", 12, 64, 8, 64, window=128, has_sinks=True),
    AttentionKind("latent attention", "GLM-4.7-Flash", 47, 20, 1, 576, value_dim=512),
    GatedDeltaKind("gated delta net", "Qwen3.6-35B-A3B", 30, 16, 32, 128, 4),
    KimiDeltaKind("Kimi's delta net", "Kimi-Linear-48B-A3B", 20, 32, 128, 4),
    ShortConvKind("short convolution", "LFM2-8B-A1B", 18, 2048, 3),
    Mamba2Kind("Mamba-2", "Nemotron-3-Nano-30B-A3B", 23, 64, 64, 8, 128, 4),
    Mamba2Kind("Mamba-2", "Granite-4.0-H-Small", 36, 128, 64, 1, 128, 4),
)
