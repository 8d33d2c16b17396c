"""Token mixers: what a layer does before its feed-forward part, and the only part that sees other tokens.

A mixer has two halves. Its spec (a frozen dataclass, ``MixerSpec`` in ``models/spec.py``) answers for its
tensors, its state and its working memory before anything is loaded. The mixer itself computes, see
``TokenMixer``. A new one is a file here with both, its line in ``_MIXERS``, and its compiled class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgemoe.models.mixers.attention import Attention, FullAttention
from edgemoe.models.mixers.delta_net import GatedDeltaNet, GatedDeltaNetSpec
from edgemoe.models.mixers.kimi_delta import KimiDelta, KimiDeltaSpec
from edgemoe.models.mixers.latent import LatentAttention, LatentSpec
from edgemoe.models.mixers.mamba2 import Mamba2, Mamba2Spec
from edgemoe.models.mixers.mixer import MixerParts, TokenMixer
from edgemoe.models.mixers.short_conv import ShortConv, ShortConvSpec
from edgemoe.models.spec import AttentionSpec

__all__ = ["FullAttention", "LatentSpec", "MixerParts", "TokenMixer", "build_mixer"]

_MIXERS: Mapping[type, Callable[[MixerParts], TokenMixer]] = {
    AttentionSpec: Attention,
    LatentSpec: LatentAttention,
    GatedDeltaNetSpec: GatedDeltaNet,
    KimiDeltaSpec: KimiDelta,
    Mamba2Spec: Mamba2,
    ShortConvSpec: ShortConv,
}


def build_mixer(parts: MixerParts) -> TokenMixer:
    """The mixer of a layer."""
    return _MIXERS[type(parts.spec)](parts)
