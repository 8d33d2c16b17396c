"""Model families: what is computed."""

from edgemoe.models.decoder import Decoder
from edgemoe.models.encoder import Encoder
from edgemoe.models.families import (
    FAMILIES,
    TensorSources,
    family_of,
    find_mtp,
    find_sources,
    mtp_of,
    read_spec,
    stored_head,
)
from edgemoe.models.layer_state import KV_FORMATS
from edgemoe.models.moe import ExpertRunner, ResidentExperts, build_router, router_norm
from edgemoe.models.mtp import MtpLayer, MtpSpec
from edgemoe.models.segments import Segment
from edgemoe.models.spec import ModelSpec, TensorSpec
from edgemoe.models.state import SequenceState
from edgemoe.models.weights import DenseWeights

__all__ = [
    "FAMILIES",
    "KV_FORMATS",
    "Decoder",
    "DenseWeights",
    "Encoder",
    "ExpertRunner",
    "ModelSpec",
    "MtpLayer",
    "MtpSpec",
    "ResidentExperts",
    "Segment",
    "SequenceState",
    "TensorSources",
    "TensorSpec",
    "build_router",
    "family_of",
    "find_mtp",
    "find_sources",
    "mtp_of",
    "read_spec",
    "router_norm",
    "stored_head",
]
