"""Where experts come from: cache, policies, predictors, and the runner that streams them."""

from edgemoe.experts.cache import ExpertCache
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.fitted import FittedGate, FittedRouting, find_fitted, read_fitted, save_fitted
from edgemoe.experts.loads import VERIFY_MODES
from edgemoe.experts.next_use import NextUse
from edgemoe.experts.policies import (
    DEFAULT_POLICY,
    FORECAST,
    HALF_LIFE_TOKENS,
    POLICIES,
    UseStatistics,
    make_policy,
)
from edgemoe.experts.predictors import (
    Forecast,
    GateHead,
    GatePredictor,
    HybridPredictor,
    NoPredictor,
    Predictor,
    StepPredictor,
    TablePredictor,
    TransitionTable,
    gate_features,
    num_gate_columns,
)
from edgemoe.experts.residency import Residency
from edgemoe.experts.runner import (
    ExpertCounts,
    ExpertLayerShape,
    LayerEvent,
    LayerObserver,
    StreamedExperts,
)
from edgemoe.experts.speculation import ForecastRecord, speculate

__all__ = [
    "DEFAULT_POLICY",
    "FORECAST",
    "HALF_LIFE_TOKENS",
    "POLICIES",
    "VERIFY_MODES",
    "Catalog",
    "ExpertCache",
    "ExpertCounts",
    "ExpertLayerShape",
    "FittedGate",
    "FittedRouting",
    "Forecast",
    "ForecastRecord",
    "GateHead",
    "GatePredictor",
    "HybridPredictor",
    "LayerEvent",
    "LayerObserver",
    "NextUse",
    "NoPredictor",
    "Predictor",
    "Residency",
    "StepPredictor",
    "StreamedExperts",
    "TablePredictor",
    "TransitionTable",
    "UseStatistics",
    "find_fitted",
    "gate_features",
    "make_policy",
    "num_gate_columns",
    "read_fitted",
    "save_fitted",
    "speculate",
]
