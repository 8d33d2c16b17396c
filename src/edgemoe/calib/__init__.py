"""Calibration: what a model does on a text, and what is learnt from it."""

from edgemoe.calib.fitting import FitReport, fit_routing
from edgemoe.calib.ladder import WIDTHS, Ladder
from edgemoe.calib.planning import Choice, by_rank, knapsack, smallest_within
from edgemoe.calib.quality import Quality, compare
from edgemoe.calib.recall import Recall, measure_recall
from edgemoe.calib.sensitivity import measured_divergence, output_errors, predicted_divergence
from edgemoe.calib.simulation import BELADY, Setting, SimulatedRun, simulate
from edgemoe.calib.trace import Trace, read_trace, record_trace

__all__ = [
    "BELADY",
    "WIDTHS",
    "Choice",
    "FitReport",
    "Ladder",
    "Quality",
    "Recall",
    "Setting",
    "SimulatedRun",
    "Trace",
    "by_rank",
    "compare",
    "fit_routing",
    "knapsack",
    "measure_recall",
    "measured_divergence",
    "output_errors",
    "predicted_divergence",
    "read_trace",
    "record_trace",
    "simulate",
    "smallest_within",
]
