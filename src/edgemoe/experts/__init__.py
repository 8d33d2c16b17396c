"""Where experts come from: cache, policies, and the runner that streams them."""

from edgemoe.experts.cache import ExpertCache
from edgemoe.experts.policies import POLICIES, EvictionPolicy, make_policy
from edgemoe.experts.runner import VERIFY_MODES, ExpertCounts, ExpertLayerShape, StreamedExperts

__all__ = [
    "POLICIES",
    "VERIFY_MODES",
    "EvictionPolicy",
    "ExpertCache",
    "ExpertCounts",
    "ExpertLayerShape",
    "StreamedExperts",
    "make_policy",
]
