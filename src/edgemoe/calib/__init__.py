"""Calibration: what a model does on a text, and what is learnt from it."""

from edgemoe.calib.fitting import FitReport, fit_routing
from edgemoe.calib.recall import Recall, measure_recall
from edgemoe.calib.simulation import BELADY, Setting, SimulatedRun, simulate
from edgemoe.calib.trace import Trace, read_trace, record_trace

__all__ = [
    "BELADY",
    "FitReport",
    "Recall",
    "Setting",
    "SimulatedRun",
    "Trace",
    "fit_routing",
    "measure_recall",
    "read_trace",
    "record_trace",
    "simulate",
]
