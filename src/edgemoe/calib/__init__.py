"""Calibration: what a model does on a text, and what is learnt from it."""

from edgemoe.calib.fitting import FitReport, fit_routing
from edgemoe.calib.inputs import TraceInputs, read_inputs
from edgemoe.calib.ladder import WIDTHS, Ladder
from edgemoe.calib.planning import Choice, by_rank, knapsack, smallest_within
from edgemoe.calib.profile import Profile, ProfileOptions
from edgemoe.calib.quality import Quality, compare
from edgemoe.calib.recall import Recall, measure_recall
from edgemoe.calib.simulation import BELADY, Setting, SimulatedRun, simulate
from edgemoe.calib.trace import Trace, read_trace, record_trace

__all__ = [
    "BELADY",
    "WIDTHS",
    "Choice",
    "FitReport",
    "Ladder",
    "Profile",
    "ProfileOptions",
    "Quality",
    "Recall",
    "Setting",
    "SimulatedRun",
    "Trace",
    "TraceInputs",
    "by_rank",
    "compare",
    "fit_routing",
    "knapsack",
    "measure_recall",
    "read_inputs",
    "read_trace",
    "record_trace",
    "simulate",
    "smallest_within",
]
